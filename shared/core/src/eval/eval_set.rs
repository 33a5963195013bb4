//! Eval sets: what a good run says and does, in the JSON of Google's Agent Development Kit (ADK).
//!
//! The root has `eval_set_id` and `eval_cases`, snake_case only, and may have more; everything within is snake_case or camelCase. What is
//! unknown is refused, so that a misspelt key is not an expectation that nobody checks; but on a case, a session's input and an event,
//! where ADK's own tools write more than they read.

use serde_json::{Map, Value, json};

use super::reader::{Fields, Mistakes, Spelling};
use super::turn::{Rubric, ToolReply, ToolUse, Turn};

/// An eval set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EvalSet {
    pub id: String,
    pub name: Option<String>,
    pub description: Option<String>,
    pub cases: Vec<EvalCase>,
}

/// One conversation, and what it must be like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EvalCase {
    pub id: String,
    /// `None`: a scenario for a simulated user, which says nothing of a run that is over.
    pub conversation: Option<Vec<Turn>>,
    /// Asked of every turn of a run that is compared with this case.
    pub rubrics: Vec<Rubric>,
}

/// Why a text is no eval set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", mistakes.join("; "))]
pub struct EvalSetError {
    /// A sentence each, with the place: `eval_cases[0].conversation[1].user_content: missing`. At least one, at most 20.
    pub mistakes: Vec<String>,
}

impl EvalSet {
    /// Reads an eval set.
    ///
    /// # Errors
    /// What is wrong and where: line and column of what is no JSON, else the path of each mistake.
    pub fn parse(json: &[u8]) -> Result<Self, EvalSetError> {
        // A byte order mark is what some editors put before a file, and no JSON.
        let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
        let value: Value = serde_json::from_slice(json).map_err(|error| EvalSetError {
            mistakes: vec![format!("not JSON: {error}")],
        })?;
        Self::from_value(&value)
    }

    /// As [`EvalSet::parse`], of JSON that has been read.
    ///
    /// # Errors
    /// The path of each mistake.
    pub fn from_value(value: &Value) -> Result<Self, EvalSetError> {
        let mut mistakes = Mistakes::default();
        let set = read_set(value, &mut mistakes);
        mistakes
            .end(set)
            .map_err(|mistakes| EvalSetError { mistakes })
    }

    /// The eval set that expects what these turns were: one case, `case_1`.
    pub fn from_turns(id: &str, name: &str, description: &str, turns: Vec<Turn>) -> Self {
        Self {
            id: id.to_owned(),
            name: Some(name.to_owned()),
            description: Some(description.to_owned()),
            cases: vec![EvalCase {
                id: "case_1".to_owned(),
                conversation: Some(turns),
                rubrics: Vec::new(),
            }],
        }
    }

    /// The JSON of it, snake_case, with what metrics read; reading it gives the same eval set.
    pub fn to_json(&self) -> Value {
        let mut set = Map::new();
        set.insert("eval_set_id".into(), json!(self.id));
        if let Some(name) = &self.name {
            set.insert("name".into(), json!(name));
        }
        if let Some(description) = &self.description {
            set.insert("description".into(), json!(description));
        }
        let cases = self.cases.iter().map(case_json).collect();
        set.insert("eval_cases".into(), Value::Array(cases));
        Value::Object(set)
    }

    /// The case that a run is compared with: the only one; else the first whose first question is the run's, but for case and space
    /// around it; else the first.
    pub fn case_for(&self, turns: &[Turn]) -> Option<&EvalCase> {
        let first = self.cases.first();
        if self.cases.len() <= 1 {
            return first;
        }
        let asked = turns.first().map(|turn| comparable(&turn.user_text()));
        let Some(asked) = asked.filter(|asked| !asked.is_empty()) else {
            return first;
        };
        let fits = |case: &&EvalCase| {
            let expected = case.conversation.as_ref().and_then(|turns| turns.first());
            expected.is_some_and(|turn| comparable(&turn.user_text()) == asked)
        };
        self.cases.iter().find(fits).or(first)
    }
}

fn comparable(text: &str) -> String {
    text.trim().to_lowercase()
}

fn read_set(value: &Value, mistakes: &mut Mistakes) -> EvalSet {
    let Some(fields) = Fields::of(value, String::new(), Spelling::Snake, mistakes) else {
        return EvalSet::default();
    };
    let id = fields.required_text("eval_set_id", mistakes).to_owned();
    fields.number("creation_timestamp", mistakes);
    if fields.get("eval_cases").is_none() {
        mistakes.add("eval_cases", "missing");
    }
    let cases = fields.list("eval_cases", mistakes).unwrap_or_default();
    EvalSet {
        id,
        name: fields.text("name", mistakes).map(str::to_owned),
        description: fields.text("description", mistakes).map(str::to_owned),
        cases: cases
            .iter()
            .enumerate()
            .filter_map(|(n, case)| read_case(case, format!("eval_cases[{n}]"), mistakes))
            .collect(),
    }
}

fn read_case(value: &Value, path: String, mistakes: &mut Mistakes) -> Option<EvalCase> {
    let fields = Fields::of(value, path, Spelling::Both, mistakes)?;
    let id = fields.required_text("eval_id", mistakes).to_owned();
    fields.number("creation_timestamp", mistakes);
    fields.object("final_session_state", mistakes);
    if let Some(input) = fields.get("session_input") {
        let path = fields.at("session_input");
        if let Some(input) = Fields::of(input, path, Spelling::Both, mistakes) {
            input.required_text("app_name", mistakes);
            input.required_text("user_id", mistakes);
            input.object("state", mistakes);
        }
    }
    let conversation = fields.get("conversation").is_some();
    let scenario = fields.get("conversation_scenario").is_some();
    if conversation == scenario {
        mistakes.add(
            &fields.path,
            "must have one of `conversation` and `conversation_scenario`",
        );
    }
    fields.object("conversation_scenario", mistakes);
    Some(EvalCase {
        id,
        conversation: fields.list("conversation", mistakes).map(|turns| {
            let path = fields.at("conversation");
            turns
                .iter()
                .enumerate()
                .filter_map(|(n, turn)| read_turn(turn, format!("{path}[{n}]"), mistakes))
                .collect()
        }),
        rubrics: read_rubrics(&fields, mistakes),
    })
}

fn read_turn(value: &Value, path: String, mistakes: &mut Mistakes) -> Option<Turn> {
    let fields = Fields::of(value, path, Spelling::Both, mistakes)?;
    fields.only(
        &[
            "invocation_id",
            "user_content",
            "final_response",
            "intermediate_data",
            "creation_timestamp",
            "duration",
            "model_duration",
            "tool_duration",
            "rubrics",
            "app_details",
        ],
        mistakes,
    );
    for number in [
        "creation_timestamp",
        "duration",
        "model_duration",
        "tool_duration",
    ] {
        fields.number(number, mistakes);
    }
    if fields.get("user_content").is_none() {
        mistakes.add(&fields.at("user_content"), "missing");
    }
    let mut turn = Turn {
        id: fields
            .text("invocation_id", mistakes)
            .unwrap_or_default()
            .to_owned(),
        user: read_content(&fields, "user_content", mistakes).texts,
        response: read_content(&fields, "final_response", mistakes).texts,
        rubrics: read_rubrics(&fields, mistakes),
        instructions: read_instructions(&fields, mistakes),
        ..Turn::default()
    };
    if let Some(data) = fields.get("intermediate_data") {
        let path = fields.at("intermediate_data");
        if let Some(data) = Fields::of(data, path, Spelling::Both, mistakes) {
            read_intermediate(&data, &mut turn, mistakes);
        }
    }
    Some(turn)
}

/// Either what was called and answered in two lists, or the events in one.
fn read_intermediate(data: &Fields, turn: &mut Turn, mistakes: &mut Mistakes) {
    if data.get("invocation_events").is_some() {
        data.only(&["invocation_events"], mistakes);
        let events = data.list("invocation_events", mistakes).unwrap_or_default();
        for (n, event) in events.iter().enumerate() {
            let path = format!("{}[{n}]", data.at("invocation_events"));
            if let Some(event) = Fields::of(event, path, Spelling::Both, mistakes) {
                event.required_text("author", mistakes);
                let content = read_content(&event, "content", mistakes);
                turn.tool_calls.extend(content.calls);
                turn.tool_responses.extend(content.replies);
            }
        }
        return;
    }
    data.only(
        &["tool_uses", "tool_responses", "intermediate_responses"],
        mistakes,
    );
    let calls = data.list("tool_uses", mistakes).unwrap_or_default();
    for (n, call) in calls.iter().enumerate() {
        let path = format!("{}[{n}]", data.at("tool_uses"));
        turn.tool_calls.extend(read_call(call, path, mistakes));
    }
    let replies = data.list("tool_responses", mistakes).unwrap_or_default();
    for (n, reply) in replies.iter().enumerate() {
        let path = format!("{}[{n}]", data.at("tool_responses"));
        turn.tool_responses
            .extend(read_reply(reply, path, mistakes));
    }
    let said = data
        .list("intermediate_responses", mistakes)
        .unwrap_or_default();
    for (n, pair) in said.iter().enumerate() {
        let path = format!("{}[{n}]", data.at("intermediate_responses"));
        match pair.as_array().map(Vec::as_slice) {
            Some([Value::String(_), Value::Array(_)]) => {}
            _ => mistakes.add(&path, "must be a list of an author and parts"),
        }
    }
}

#[derive(Default)]
struct Content {
    texts: Vec<String>,
    calls: Vec<ToolUse>,
    replies: Vec<ToolReply>,
}

fn read_content(fields: &Fields, name: &str, mistakes: &mut Mistakes) -> Content {
    let mut content = Content::default();
    let Some(value) = fields.get(name) else {
        return content;
    };
    let Some(said) = Fields::of(value, fields.at(name), Spelling::Both, mistakes) else {
        return content;
    };
    said.only(&["role", "parts"], mistakes);
    said.text("role", mistakes);
    for (n, part) in said
        .list("parts", mistakes)
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let path = format!("{}[{n}]", said.at("parts"));
        let Some(part) = Fields::of(part, path, Spelling::Both, mistakes) else {
            continue;
        };
        part.only(
            &[
                "text",
                "function_call",
                "function_response",
                "thought",
                "thought_signature",
                "inline_data",
                "file_data",
                "video_metadata",
                "media_resolution",
                "executable_code",
                "code_execution_result",
                "tool_call",
                "tool_response",
                "part_metadata",
            ],
            mistakes,
        );
        if let Some(text) = part.text("text", mistakes) {
            content.texts.push(text.to_owned());
        }
        if let Some(call) = part.get("function_call") {
            let path = part.at("function_call");
            content.calls.extend(read_call(call, path, mistakes));
        }
        if let Some(reply) = part.get("function_response") {
            let path = part.at("function_response");
            content.replies.extend(read_reply(reply, path, mistakes));
        }
    }
    content
}

fn read_call(value: &Value, path: String, mistakes: &mut Mistakes) -> Option<ToolUse> {
    let fields = Fields::of(value, path, Spelling::Both, mistakes)?;
    fields.only(
        &["name", "args", "id", "partial_args", "will_continue"],
        mistakes,
    );
    let args = fields.object("args", mistakes);
    Some(ToolUse {
        name: fields.text("name", mistakes).unwrap_or_default().to_owned(),
        args: args.map_or(Value::Null, |args| Value::Object(args.clone())),
        id: fields.text("id", mistakes).map(str::to_owned),
    })
}

fn read_reply(value: &Value, path: String, mistakes: &mut Mistakes) -> Option<ToolReply> {
    let fields = Fields::of(value, path, Spelling::Both, mistakes)?;
    fields.only(
        &[
            "name",
            "response",
            "id",
            "parts",
            "scheduling",
            "will_continue",
        ],
        mistakes,
    );
    let response = fields.object("response", mistakes);
    Some(ToolReply {
        name: fields.text("name", mistakes).unwrap_or_default().to_owned(),
        response: response.map_or(Value::Null, |response| Value::Object(response.clone())),
        id: fields.text("id", mistakes).map(str::to_owned),
    })
}

pub(super) fn read_rubrics(fields: &Fields, mistakes: &mut Mistakes) -> Vec<Rubric> {
    let rubrics = fields.list("rubrics", mistakes).unwrap_or_default();
    rubrics
        .iter()
        .enumerate()
        .filter_map(|(n, rubric)| {
            read_rubric(
                rubric,
                n,
                format!("{}[{n}]", fields.at("rubrics")),
                mistakes,
            )
        })
        .collect()
}

/// ADK's object, or just its text.
fn read_rubric(value: &Value, n: usize, path: String, mistakes: &mut Mistakes) -> Option<Rubric> {
    if let Value::String(text) = value {
        return Some(Rubric {
            id: format!("rubric_{n}"),
            text: text.clone(),
            ..Rubric::default()
        });
    }
    let fields = Fields::of(value, path, Spelling::Both, mistakes)?;
    fields.only(
        &["rubric_id", "rubric_content", "description", "type"],
        mistakes,
    );
    let mut text = "";
    match fields.get("rubric_content") {
        None => mistakes.add(&fields.at("rubric_content"), "missing"),
        Some(content) => {
            let path = fields.at("rubric_content");
            if let Some(content) = Fields::of(content, path, Spelling::Both, mistakes) {
                content.only(&["text_property"], mistakes);
                text = content.text("text_property", mistakes).unwrap_or_default();
            }
        }
    }
    Some(Rubric {
        id: fields.required_text("rubric_id", mistakes).to_owned(),
        text: text.to_owned(),
        description: fields.text("description", mistakes).map(str::to_owned),
        kind: fields.text("type", mistakes).map(str::to_owned),
    })
}

fn read_instructions(fields: &Fields, mistakes: &mut Mistakes) -> Vec<String> {
    let mut instructions = Vec::new();
    let Some(app) = fields.get("app_details") else {
        return instructions;
    };
    let Some(app) = Fields::of(app, fields.at("app_details"), Spelling::Both, mistakes) else {
        return instructions;
    };
    app.only(&["agent_details"], mistakes);
    let agents = app.object("agent_details", mistakes);
    for (name, agent) in agents.into_iter().flatten() {
        let path = format!("{}.{name}", app.at("agent_details"));
        if let Some(agent) = Fields::of(agent, path, Spelling::Both, mistakes) {
            agent.only(&["name", "instructions", "tool_declarations"], mistakes);
            agent.required_text("name", mistakes);
            if let Some(text) = agent
                .text("instructions", mistakes)
                .filter(|t| !t.is_empty())
            {
                instructions.push(text.to_owned());
            }
        }
    }
    instructions
}

fn case_json(case: &EvalCase) -> Value {
    let mut object = Map::new();
    object.insert("eval_id".into(), json!(case.id));
    match &case.conversation {
        Some(turns) => {
            let turns = turns.iter().map(turn_json).collect();
            object.insert("conversation".into(), Value::Array(turns));
        }
        // What was read of it is only that it is there.
        None => {
            object.insert("conversation_scenario".into(), json!({}));
        }
    }
    put_rubrics(&mut object, &case.rubrics);
    Value::Object(object)
}

fn turn_json(turn: &Turn) -> Value {
    let mut object = Map::new();
    object.insert("invocation_id".into(), json!(turn.id));
    object.insert("user_content".into(), content_json("user", &turn.user));
    if !turn.response.is_empty() {
        object.insert(
            "final_response".into(),
            content_json("model", &turn.response),
        );
    }
    let calls: Vec<Value> = turn
        .tool_calls
        .iter()
        .map(|call| {
            let mut object = Map::new();
            object.insert("name".into(), json!(call.name));
            if !call.args.is_null() {
                object.insert("args".into(), call.args.clone());
            }
            if let Some(id) = &call.id {
                object.insert("id".into(), json!(id));
            }
            Value::Object(object)
        })
        .collect();
    let replies: Vec<Value> = turn
        .tool_responses
        .iter()
        .map(|reply| {
            let mut object = Map::new();
            object.insert("name".into(), json!(reply.name));
            match &reply.response {
                Value::Null => {}
                // The format knows only objects.
                response @ Value::Object(_) => {
                    object.insert("response".into(), response.clone());
                }
                other => {
                    object.insert("response".into(), json!({ "result": other }));
                }
            }
            if let Some(id) = &reply.id {
                object.insert("id".into(), json!(id));
            }
            Value::Object(object)
        })
        .collect();
    let data = json!({"tool_uses": calls, "tool_responses": replies, "intermediate_responses": []});
    object.insert("intermediate_data".into(), data);
    put_rubrics(&mut object, &turn.rubrics);
    Value::Object(object)
}

fn content_json(role: &str, parts: &[String]) -> Value {
    let parts: Vec<Value> = parts.iter().map(|text| json!({ "text": text })).collect();
    json!({"role": role, "parts": parts})
}

fn put_rubrics(object: &mut Map<String, Value>, rubrics: &[Rubric]) {
    if rubrics.is_empty() {
        return;
    }
    let rubrics = rubrics
        .iter()
        .map(|rubric| {
            let mut object = Map::new();
            object.insert("rubric_id".into(), json!(rubric.id));
            object.insert(
                "rubric_content".into(),
                json!({"text_property": rubric.text}),
            );
            if let Some(description) = &rubric.description {
                object.insert("description".into(), json!(description));
            }
            if let Some(kind) = &rubric.kind {
                object.insert("type".into(), json!(kind));
            }
            Value::Object(object)
        })
        .collect();
    object.insert("rubrics".into(), Value::Array(rubrics));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(turn: Value) -> Value {
        json!({"eval_set_id": "s", "eval_cases": [{"eval_id": "c", "conversation": [turn]}]})
    }

    fn mistakes(value: &Value) -> Vec<String> {
        EvalSet::from_value(value).unwrap_err().mistakes
    }

    #[test]
    fn both_spellings_and_both_forms_of_tool_calls_are_read() {
        let snake = conversation(json!({
            "user_content": {"parts": [{"text": "a"}, {"text": "b"}]},
            "final_response": {"role": "model", "parts": [{"text": "c"}]},
            "intermediate_data": {"tool_uses": [{"name": "t", "args": {"release_name": 1}, "id": "1"}],
                "tool_responses": [{"name": "t", "response": {"ok": true}}]},
            "rubrics": [{"rubric_id": "r", "rubric_content": {"text_property": "is short"}}],
        }));
        let camel = json!({"eval_set_id": "s", "other": 1, "eval_cases": [{"evalId": "c", "conversation": [{
            "userContent": {"parts": [{"text": "a"}, {"text": "b"}]},
            "finalResponse": {"role": "model", "parts": [{"text": "c"}]},
            "intermediateData": {"invocationEvents": [
                {"author": "x", "content": {"parts": [{"functionCall": {"name": "t", "args": {"release_name": 1}, "id": "1"}}]}},
                {"author": "x", "content": {"parts": [{"functionResponse": {"name": "t", "response": {"ok": true}}}]}}]},
            "rubrics": [{"rubricId": "r", "rubricContent": {"textProperty": "is short"}}],
        }]}]});
        let set = EvalSet::from_value(&snake).unwrap();
        assert_eq!(set, EvalSet::from_value(&camel).unwrap());
        let turn = &set.cases[0].conversation.as_ref().unwrap()[0];
        assert_eq!(turn.user_text(), "a b");
        assert_eq!(turn.tool_calls[0].args, json!({"release_name": 1}));
        assert_eq!(EvalSet::from_value(&set.to_json()).unwrap(), set);
    }

    #[test]
    fn mistakes_say_where_they_are() {
        assert_eq!(
            mistakes(&conversation(
                json!({"final_respons": {}, "user_content": {"parts": [{"txt": "a"}]}})
            )),
            [
                "eval_cases[0].conversation[0]: unknown key `final_respons`",
                "eval_cases[0].conversation[0].user_content.parts[0]: unknown key `txt`",
            ]
        );
        assert_eq!(
            mistakes(&json!({"evalSetId": "s"})),
            ["eval_set_id: missing", "eval_cases: missing"]
        );
        assert_eq!(
            mistakes(&json!({"eval_set_id": "s", "eval_cases": [{"eval_id": "c"}]})),
            ["eval_cases[0]: must have one of `conversation` and `conversation_scenario`"]
        );
        assert_eq!(mistakes(&json!([])), ["must be an object, it is a list"]);
        let error = EvalSet::parse(b"{\n \"eval_set_id\": }").unwrap_err();
        assert!(error.to_string().contains("line 2 column 17"), "{error}");
    }

    #[test]
    fn a_run_is_compared_with_the_case_that_asks_the_same() {
        let case = |id: &str, asked: &str| EvalCase {
            id: id.into(),
            conversation: Some(vec![Turn {
                user: vec![asked.into()],
                ..Turn::default()
            }]),
            ..EvalCase::default()
        };
        let set = EvalSet {
            cases: vec![case("1", "Roll a die"), case("2", "Is 7 prime?")],
            ..EvalSet::default()
        };
        for (asked, id) in [(" is 7 PRIME? ", "2"), ("something else", "1"), ("", "1")] {
            let turns = [Turn {
                user: vec![asked.into()],
                ..Turn::default()
            }];
            assert_eq!(set.case_for(&turns).unwrap().id, id, "{asked}");
        }
    }
}

//! One run of an agent, from its call to its last event. It goes on whether its caller waits for it or not.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tailspan_core::id::hex;
use tailspan_service::{
    agents::{Agent, AgentKind},
    error::ApiError,
    metrics::Reason,
};
use tokio::{
    sync::{
        OwnedSemaphorePermit,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    },
    time::sleep,
};

use super::{
    call::{CallError, Clients, Form, call, context, told_reason},
    reading::{Failure, Reading, fields},
    record::{Common, Kept, Place, Recorder},
    request::Asked,
    sse::{Parser, SseEvent},
};

/// How long a run may go on once the process is told to end.
const DRAIN: Duration = Duration::from_secs(5);

/// What a run needs.
pub(super) struct Run {
    pub(super) place: Place,
    pub(super) clients: Arc<Clients>,
    pub(super) agent: Arc<Agent>,
    pub(super) asked: Asked,
    /// The caller's span, if it named one.
    pub(super) parent: Option<String>,
    /// Held for as long as the run goes on.
    pub(super) permit: OwnedSemaphorePermit,
}

/// What a run tells its caller, in this order. Nobody need listen.
pub(super) enum News {
    /// Its first event is stored, after this one.
    Begun {
        after: u64,
    },
    /// It could not begin, and left nothing.
    Refused(ApiError),
    /// The agent's own frame, for the wire. All frames of a run together are bounded by what an answer may have.
    Frame(String),
    Ended(Box<Ended>),
}

/// How a run ended. All that could be stored is stored.
pub(super) struct Ended {
    pub(super) answer: Result<Value, CallError>,
    pub(super) kept: Kept,
}

/// Starts a run in a task of its own.
pub(super) fn start(run: Run) -> UnboundedReceiver<News> {
    let (news, receiver) = unbounded_channel();
    let tasks = run.place.app.tasks.clone();
    tasks.spawn(async move { go(run, &news).await });
    receiver
}

/// Whoever went away is not told.
fn tell(to: &UnboundedSender<News>, news: News) {
    let _ = to.send(news);
}

async fn go(run: Run, news: &UnboundedSender<News>) {
    let Run {
        place,
        clients,
        agent,
        asked,
        parent,
        permit: _permit,
    } = run;
    let app = place.app.clone();
    let span = hex(&rand::random::<[u8; 8]>());
    let common = Common {
        span: span.as_str().into(),
        parent,
        agent: agent.id.clone(),
        session: asked.session_id.clone(),
        user: asked.user_id.clone(),
        level: asked.recorded,
    };
    let trace = place.trace.clone();
    let mut started = fields("workflow_started");
    started.insert("inputs".to_owned(), json!({"question": asked.question}));
    let mut recorder = match Recorder::begin(place, common, started).await {
        Ok(Some((recorder, after))) => {
            tell(news, News::Begun { after });
            recorder
        }
        Ok(None) => return tell(news, News::Refused(ApiError::trace_deleted(&trace))),
        Err(error) => return tell(news, News::Refused(error.into())),
    };
    app.metrics.completions.inc();
    let is_model = !agent.instrumented && agent.kind != AgentKind::Ragflow;
    if is_model {
        let mut event = fields("llm_call_started");
        event.insert("call_id".to_owned(), Value::from(span.as_str()));
        event.insert("inputs".to_owned(), Value::from(asked.messages().to_vec()));
        if let Some(model) = &agent.model {
            event.insert("model".to_owned(), Value::from(model.as_str()));
        }
        recorder.record(event);
    }
    let mut reading = Reading::new(agent.kind, &asked.question);
    let context = context(trace.as_str(), &span);
    let talk = talk(
        &clients,
        &agent,
        &asked,
        context,
        &mut reading,
        &mut recorder,
        news,
    );
    let ended = tokio::select! {
        ended = talk => ended,
        () = async { app.shutdown.cancelled().await; sleep(DRAIN).await } => {
            Err(CallError::failed("interrupted", "tailspan shut down before the agent had answered"))
        }
    };
    let ended = ended.map_err(|error| CallError {
        failure: Failure {
            kind: told_reason(&agent, &error.failure.kind),
            message: told_reason(&agent, &error.failure.message),
        },
        ..error
    });
    close(
        &mut recorder,
        &mut reading,
        &ended,
        is_model.then_some(&*span),
    );
    if let Err(error) = &ended {
        let reason = match error.is_timeout {
            true => "agent_timeout",
            false => "agent_failed",
        };
        app.metrics
            .completions_failed
            .get_or_create(&Reason { reason })
            .inc();
    }
    let kept = recorder.finish().await;
    let answer = ended.map(|()| reading.answer());
    tell(news, News::Ended(Box::new(Ended { answer, kept })));
}

/// Calls the agent and reads its answer to the end.
async fn talk(
    clients: &Clients,
    agent: &Arc<Agent>,
    asked: &Asked,
    context: axum::http::HeaderMap,
    reading: &mut Reading,
    recorder: &mut Recorder,
    news: &UnboundedSender<News>,
) -> Result<(), CallError> {
    let body = asked.for_agent(agent);
    let mut answer = call(clients, agent, &body, context, asked.streams_from(agent)).await?;
    match answer.form {
        Form::Whole => {
            let mut whole = Vec::new();
            while let Some(piece) = answer.next().await? {
                whole.extend_from_slice(&piece);
            }
            reading.whole(&whole)?;
            if asked.stream {
                // What is JSON is UTF-8. A line break in it would end the frame's line, so it goes out as several.
                let data = String::from_utf8_lossy(&whole).replace(['\r', '\n'], " ");
                tell(news, News::Frame(SseEvent { name: None, data }.frame()));
            }
            return Ok(());
        }
        Form::Frames => {}
    }
    let mut parser = Parser::default();
    let mut frames = Vec::new();
    let mut is_done = false;
    while !is_done {
        let Some(piece) = answer.next().await? else {
            break;
        };
        parser.push(&piece, &mut frames);
        is_done = take(&mut frames, asked, reading, recorder, news)?;
    }
    if !is_done {
        frames.extend(parser.finish());
        take(&mut frames, asked, reading, recorder, news)?;
    }
    Ok(reading.end()?)
}

/// Passes frames on, then records what they tell. Returns whether the agent said that it is done.
fn take(
    frames: &mut Vec<SseEvent>,
    asked: &Asked,
    reading: &mut Reading,
    recorder: &mut Recorder,
    news: &UnboundedSender<News>,
) -> Result<bool, Failure> {
    let mut events = Vec::new();
    for frame in frames.drain(..) {
        if frame.data.trim() == "[DONE]" {
            reading.done();
            return Ok(true);
        }
        let read = reading.frame(&frame, &mut events);
        // One that says that the agent failed is the agent's own word too; what is no JSON is nobody's.
        let is_garbage = matches!(&read, Err(failure) if failure.kind == "invalid_answer");
        if asked.stream && !is_garbage {
            tell(news, News::Frame(frame.frame()));
        }
        if recorder.common.session.is_none() {
            recorder.common.session.clone_from(&reading.session_id);
        }
        for event in events.drain(..) {
            recorder.record(event);
        }
        read?;
    }
    Ok(false)
}

/// The run's last events.
fn close(
    recorder: &mut Recorder,
    reading: &mut Reading,
    ended: &Result<(), CallError>,
    model_call: Option<&str>,
) {
    let mut events = Vec::new();
    reading.closing(&mut events);
    let error = ended
        .as_ref()
        .err()
        .map(|error| json!({"type": error.failure.kind, "message": error.failure.message}));
    if let Some(call_id) = model_call {
        let mut event = fields("llm_call_completed");
        event.insert("call_id".to_owned(), Value::from(call_id));
        if let Some(model) = &reading.model {
            event.insert("model".to_owned(), Value::from(model.as_str()));
        }
        if reading.has_words() {
            event.insert("outputs".to_owned(), reading.outputs());
        }
        reading.add_use(&mut event);
        if let Some(error) = &error {
            event.insert("error".to_owned(), error.clone());
        }
        recorder.record(event);
    }
    for event in events {
        recorder.record(event);
    }
    let mut end = fields(match ended {
        Ok(()) => "workflow_completed",
        Err(_) => "workflow_failed",
    });
    match error {
        None => {
            end.insert("outputs".to_owned(), reading.outputs());
        }
        Some(error) => {
            if reading.has_words() {
                end.insert("outputs".to_owned(), reading.outputs());
            }
            end.insert("error".to_owned(), error);
        }
    }
    recorder.record(end);
}

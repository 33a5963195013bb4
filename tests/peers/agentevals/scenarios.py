"""Agents under development, as the dev server's own Python client tells of them: its classes unmodified, real SDK spans and log records.

    python scenarios.py URL [--otlp OTLP_URL] [NAME ...]

URL is that of a server (`http://127.0.0.1:8001`). Every scenario is told to it by the client, which never reads an answer; then a client that
waits ends the session once more. Prints one line of JSON for each session: what `session_complete` answered, what `/stream/ui-updates` told, and
what `GET /api/streaming/sessions` has of it. Times and span ids are fixed, so that two servers can be told the very same.

With `--otlp` the client is version 0.11, which exports OTLP.
"""

import argparse
import asyncio
import json
import logging
import sys
import threading
import time
import urllib.error
import urllib.request

from opentelemetry import trace
from opentelemetry._logs import LogRecord, set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import Status, StatusCode

from agentevals import AgentEvals

try:
    from agentevals.streaming import enable_streaming
    from agentevals.streaming.processor import AgentEvalsLogStreamingProcessor, AgentEvalsStreamingProcessor
except ImportError:
    # Version 0.11 has no WebSocket any more.
    AgentEvalsStreamingProcessor = object

logging.disable(logging.CRITICAL)
EPOCH = 1_760_000_000_000_000_000
MS = 1_000_000
PATIENCE_SECONDS = 20


class Counting(IdGenerator):
    def __init__(self, seed):
        self.seed, self.spans, self.traces = seed, 0, 0

    def generate_span_id(self):
        self.spans += 1
        return (0xA100 + self.seed << 48) + self.spans

    def generate_trace_id(self):
        self.traces += 1
        return (0xB200 + self.seed << 112) + self.traces


class Agent:
    """One agent with a clock of its own: every step takes ten milliseconds."""

    def __init__(self, seed, processor=None, scope="demo", provider=None, logs=None):
        self.now = EPOCH
        self.provider = provider or TracerProvider(id_generator=Counting(seed), shutdown_on_exit=False)
        self.logs = logs or LoggerProvider(shutdown_on_exit=False)
        if processor:
            self.provider.add_span_processor(processor)
            self.logs.add_log_record_processor(AgentEvalsLogStreamingProcessor(processor))
        self.tracer = self.provider.get_tracer(scope, "1.2")
        self.logger = self.logs.get_logger(scope)

    def tick(self, ms=10):
        self.now += ms * MS
        return self.now

    def begin(self, name, parent=None, **attributes):
        context = trace.set_span_in_context(parent) if parent else None
        told = {key.replace("__", "."): value for key, value in attributes.items()}
        return self.tracer.start_span(name, context=context or {}, start_time=self.tick(), attributes=told)

    def end(self, span, **attributes):
        for key, value in attributes.items():
            span.set_attribute(key.replace("__", "."), value)
        span.end(end_time=self.tick())

    def log(self, span, event, body, timed=True):
        context = trace.set_span_in_context(span)
        self.logger.emit(LogRecord(timestamp=self.tick(1) if timed else None, context=context, event_name=event, body=body))

    def chat(self, parent, model, asked, answer, **attributes):
        """A model call with its messages in attributes."""
        told = {"gen_ai__operation__name": "chat", "gen_ai__request__model": model, "gen_ai__system": "openai"}
        if asked is not None:
            told["gen_ai__input__messages"] = json.dumps(asked)
        if answer is not None:
            told["gen_ai__output__messages"] = json.dumps(answer)
        self.end(self.begin(f"chat {model}", parent, **{**told, **attributes}))

    def tool(self, parent, name, **attributes):
        self.end(self.begin(f"execute_tool {name}", parent, gen_ai__operation__name="execute_tool", gen_ai__tool__name=name, **attributes))


def user(text):
    return {"role": "user", "parts": [{"type": "text", "content": text}]}


def says(text):
    return {"role": "assistant", "parts": [{"type": "text", "content": text}], "finish_reason": "stop"}


def calls(*wanted):
    parts = [{"type": "tool_call", "id": id, "name": name, "arguments": arguments} for id, name, arguments in wanted]
    return {"role": "assistant", "parts": parts, "finish_reason": "tool_calls"}


def answers(id, text):
    return {"role": "tool", "parts": [{"type": "tool_call_response", "id": id, "response": text}]}


# --- the scenarios: what one agent does ------------------------------------------------------------------------------------------

def single_turn(agent):
    root = agent.begin("invoke_agent dicer", gen_ai__operation__name="invoke_agent", gen_ai__agent__name="dicer")
    asked = [user("Roll a d20")]
    agent.chat(root, "gpt-4o", asked, [calls(("call_1", "roll_die", {"sides": 20}))], gen_ai__usage__input_tokens=50,
               gen_ai__usage__output_tokens=12, gen_ai__request__temperature=0.5, gen_ai__request__max_tokens=256,
               gen_ai__response__model="gpt-4o-2024-08-06", gen_ai__response__finish_reasons=("tool_calls",))
    agent.tool(root, "roll_die", gen_ai__tool__call__id="call_1", gen_ai__tool__call__arguments='{"sides": 20}',
               gen_ai__tool__call__result='{"result": 13}')
    asked += [calls(("call_1", "roll_die", {"sides": 20})), answers("call_1", "13")]
    agent.chat(root, "gpt-4o", asked, [says("You rolled 13.")], gen_ai__usage__input_tokens=71, gen_ai__usage__output_tokens=17,
               gen_ai__response__model="gpt-4o-2024-08-06", gen_ai__response__finish_reasons=("stop",))
    agent.end(root)


def history(agent):
    """Three turns, each call with all that was said before, as OpenAI's clients write it."""
    said = []
    for number, question in enumerate(["What is 2+2?", "And 3+3?", "Thanks!"], 1):
        root = agent.begin("agent run", gen_ai__operation__name="invoke_agent", gen_ai__agent__name="calc")
        said.append({"role": "user", "content": question})
        if number < 3:
            wanted = {"id": f"c{number}", "type": "function", "function": {"name": "add", "arguments": f'{{"a": {number + 1}, "b": {number + 1}}}'}}
            call = {"role": "assistant", "content": None, "tool_calls": [wanted]}
            agent.chat(root, "gpt-4o-mini", said, [call], gen_ai__usage__input_tokens=10, gen_ai__usage__output_tokens=2)
            agent.tool(root, "add", gen_ai__tool__call__id=f"c{number}", gen_ai__tool__call__result=str(2 * (number + 1)))
            said += [call, {"role": "tool", "tool_call_id": f"c{number}", "content": str(2 * (number + 1))}]
        answer = {"role": "assistant", "content": f"Answer {number}."}
        agent.chat(root, "gpt-4o-mini", said, [answer], gen_ai__usage__input_tokens=20, gen_ai__usage__output_tokens=4)
        said.append(answer)
        agent.end(root)


def logged_call(agent, parent, said, answer, timed=True):
    """A model call as OpenAI's instrumentation tells it: the messages in log records."""
    span = agent.begin("chat gpt-4o", parent, gen_ai__operation__name="chat", gen_ai__request__model="gpt-4o", gen_ai__system="openai",
                       gen_ai__usage__input_tokens=9, gen_ai__usage__output_tokens=3, gen_ai__response__finish_reasons=("stop",))
    for role, body in said:
        agent.log(span, f"gen_ai.{role}.message", body, timed)
    agent.log(span, "gen_ai.choice", {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **answer}}, timed)
    agent.end(span)
    return ("assistant", answer)


def logged_turns(agent, timed=True, questions=("Roll a die", "Is it prime?")):
    """Bare calls without a common root: LangChain over OpenAI's instrumentation."""
    said = [("system", {"content": "You roll dice."})]
    for number, question in enumerate(questions, 1):
        said.append(("user", {"content": question}))
        name = "roll_die" if number == 1 else "check_prime"
        wanted = {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": '{"n": 6}'}}
        said.append(logged_call(agent, None, said, {"tool_calls": [wanted]}, timed))
        said.append(("tool", {"id": f"call_{number}", "content": "4"}))
        said.append(logged_call(agent, None, said, {"content": f"Answer {number}."}, timed))


def logged_turns_untimed(agent):
    logged_turns(agent, timed=False)


def logged_agent(agent):
    """One turn under an agent, its content in log records only."""
    root = agent.begin("invoke_agent helper", gen_ai__operation__name="invoke_agent", gen_ai__agent__name="helper")
    logged_call(agent, root, [("user", {"content": "Say hello"})], {"content": "Hello!"})
    agent.end(root)


def yes_twice(agent):
    for number in (1, 2):
        root = agent.begin("invoke_agent asker", gen_ai__operation__name="invoke_agent", gen_ai__agent__name="asker")
        agent.chat(root, "gpt-4o", [user("yes")], [says(f"Step {number} is done.")])
        agent.end(root)


def adk(agent, with_ids=False):
    """Google ADK 1, as it was: the request and the response as a whole, tools without ids."""
    outer = agent.begin("invocation")
    root = agent.begin("invoke_agent helm_agent", outer, gen_ai__operation__name="invoke_agent", gen_ai__agent__name="helm_agent")
    asked = {"model": "gemini-2.0-flash", "contents": [{"role": "user", "parts": [{"text": "List the"}, {"text": "releases"}]}]}
    call = {"content": {"role": "model", "parts": [{"function_call": {"id": "adk-1", "name": "helm_list", "args": {"all_namespaces": True}}}]},
            "usage_metadata": {"prompt_token_count": 100, "candidates_token_count": 10}}
    llm = dict(gen_ai__system="gcp.vertex.agent", gen_ai__request__model="gemini-2.0-flash", gcp__vertex__agent__invocation_id="e-1",
               gcp__vertex__agent__session_id="s-1")
    first = agent.begin("call_llm", root, **llm, gcp__vertex__agent__llm_request=json.dumps(asked), gcp__vertex__agent__llm_response=json.dumps(call))
    agent.tool(first, "helm_list", gen_ai__system="gcp.vertex.agent", gcp__vertex__agent__tool_call_args='{"all_namespaces": true}',
               gcp__vertex__agent__tool_response='{"releases": ["a", "b"]}', **({"gen_ai__tool__call__id": "adk-1"} if with_ids else {}))
    agent.end(first)
    asked["contents"] += [call["content"], {"role": "user", "parts": [{"function_response": {"name": "helm_list", "response": {"releases": ["a", "b"]}}}]}]
    final = {"content": {"role": "model", "parts": [{"text": "There are a "}, {"text": "and b."}]},
             "usage_metadata": {"prompt_token_count": 150, "candidates_token_count": 20}}
    agent.end(agent.begin("call_llm", root, **llm, gcp__vertex__agent__llm_request=json.dumps(asked), gcp__vertex__agent__llm_response=json.dumps(final)))
    agent.end(root)
    agent.end(outer)


def adk_ids(agent):
    adk(agent, with_ids=True)


def strands(agent):
    """Strands' newer form: messages in span events, of which the client takes the first of each name."""
    event = "gen_ai.client.inference.operation.details"
    system = {"gen_ai__system": "strands-agents"}

    def step(name, parent, asked, answer, **attributes):
        span = agent.begin(name, parent, **system, **attributes)
        span.add_event(event, {"gen_ai.input.messages": json.dumps(asked)}, timestamp=agent.tick(1))
        span.add_event(event, {"gen_ai.output.messages": json.dumps(answer)}, timestamp=agent.tick(1))
        return span

    question, wanted = [user("Weather in Oslo?")], [calls(("tooluse_1", "get_weather", {"city": "Oslo"}))]
    final = [{"role": "assistant", "parts": [{"type": "text", "content": "It rains in Oslo.\n"}], "finish_reason": "end_turn"}]
    root = step("invoke_agent weather", None, question, final, gen_ai__operation__name="invoke_agent", gen_ai__agent__name="weather",
                gen_ai__request__model="claude-3", gen_ai__usage__input_tokens=300, gen_ai__usage__output_tokens=30)
    cycle = agent.begin("execute_event_loop_cycle", root, **system)
    agent.end(step("chat", cycle, question, wanted, gen_ai__operation__name="chat", gen_ai__request__model="claude-3",
                   gen_ai__usage__input_tokens=100, gen_ai__usage__output_tokens=10))
    result = [{"role": "tool", "parts": [{"type": "tool_call_response", "id": "tooluse_1", "response": [{"text": "rain"}]}]}]
    agent.end(step("execute_tool get_weather", cycle, wanted, result, gen_ai__operation__name="execute_tool",
                   gen_ai__tool__name="get_weather", gen_ai__tool__call__id="tooluse_1"))
    agent.end(cycle)
    cycle = agent.begin("execute_event_loop_cycle", root, **system)
    agent.end(step("chat", cycle, question + wanted + result, final, gen_ai__operation__name="chat", gen_ai__request__model="claude-3",
                   gen_ai__usage__input_tokens=200, gen_ai__usage__output_tokens=20))
    agent.end(cycle)
    agent.end(root)


def langchain(agent):
    """A chain that names no operation: children in children, messages as LangSmith writes them."""
    root = agent.begin("AgentExecutor")
    inner = agent.begin("RunnableSequence", root)
    asked = [{"role": "system", "content": "Be brief."}, {"role": "human", "content": "Capital of France?"}]
    wanted = [{"role": "ai", "content": "", "tool_calls": [{"id": "lc_1", "type": "function", "function": {"name": "search", "arguments": '{"q": "France"}'}}]}]
    model = dict(gen_ai__request__model="gpt-4o", gen_ai__system="openai")
    agent.end(agent.begin("ChatOpenAI", inner, **model, gen_ai__input__messages=json.dumps(asked), gen_ai__output__messages=json.dumps(wanted)))
    agent.end(inner)
    agent.end(agent.begin("search", root, gen_ai__tool__name="search", gen_ai__tool__call__arguments='{"q": "France"}',
                          gen_ai__tool__call__result="Paris is the capital"))
    asked += wanted + [{"role": "tool", "tool_call_id": "lc_1", "content": "Paris is the capital"}]
    agent.end(agent.begin("ChatOpenAI", root, **model, gen_ai__input__messages=json.dumps(asked),
                          gen_ai__output__messages=json.dumps([{"role": "ai", "content": "Paris."}])))
    agent.end(root)


def errors(agent):
    """A call that fails, is tried again, and a tool that fails."""
    root = agent.begin("invoke_agent flaky", gen_ai__operation__name="invoke_agent", gen_ai__agent__name="flaky")
    failed = agent.begin("chat gpt-4o", root, gen_ai__operation__name="chat", gen_ai__request__model="gpt-4o", gen_ai__provider__name="openai",
                         gen_ai__input__messages=json.dumps([user("Book it")]), error__type="timeout")
    failed.set_status(Status(StatusCode.ERROR, "timed out"))
    agent.end(failed)
    agent.chat(root, "gpt-4o", [user("Book it")], [calls(("b1", "book", {"n": 1}))])
    tool = agent.begin("execute_tool book", root, gen_ai__operation__name="execute_tool", gen_ai__tool__name="book", gen_ai__tool__call__id="b1",
                       gen_ai__tool__call__arguments='{"n": 1}', gen_ai__tool__call__result='{"isError": true, "text": "full"}', error__type="Full")
    tool.set_status(Status(StatusCode.ERROR))
    agent.end(tool)
    agent.chat(root, "gpt-4o", [user("Book it"), calls(("b1", "book", {"n": 1})), answers("b1", "full")], [says("It is full.")])
    agent.end(root)


def tools_without_ids(agent):
    root = agent.begin("invoke_agent twice", gen_ai__operation__name="invoke_agent", gen_ai__agent__name="twice")
    agent.chat(root, "gpt-4o", [user("Look twice")], [says("Looking.")])
    for place in ("here", "there"):
        agent.tool(root, "look", gen_ai__tool__call__arguments=json.dumps({"place": place}), gen_ai__tool__call__result=f"nothing {place}")
    agent.chat(root, "gpt-4o", [user("Look twice")], [says("Nothing.")])
    agent.end(root)


def parallel_tools(agent):
    root = agent.begin("invoke_agent both", gen_ai__operation__name="invoke_agent", gen_ai__agent__name="both")
    wanted = calls(("p1", "left", {"x": 1}), ("p2", "right", {"x": [1, 2]}))
    agent.chat(root, "gpt-4o", [user("Both")], [wanted])
    agent.tool(root, "left", gen_ai__tool__call__id="p1", gen_ai__tool__call__arguments='{"x": 1}', gen_ai__tool__call__result="[1, 2]")
    agent.tool(root, "right", gen_ai__tool__call__id="p2", gen_ai__tool__call__arguments='{"x": [1, 2]}', gen_ai__tool__call__result='["a", true, null]')
    agent.chat(root, "gpt-4o", [user("Both"), wanted, answers("p1", "1"), answers("p2", "2")], [says("Done.")])
    agent.end(root)


def models(agent):
    """What a call can say of itself: cache, provider, limits, several reasons and models."""
    root = agent.begin("workflow", gen_ai__operation__name="invoke_agent", gen_ai__agent__name="w")
    agent.chat(root, "gpt-4o", [user("Go")], [calls(("m1", "t", {}))], gen_ai__provider__name="openai", gen_ai__usage__input_tokens=121,
               gen_ai__usage__output_tokens=29, gen_ai__usage__cache_read__input_tokens=32, gen_ai__usage__cache_creation__input_tokens=1,
               gen_ai__request__temperature=0.0, gen_ai__request__max_tokens=256, gen_ai__response__model="gpt-4o-2024-08-06",
               gen_ai__response__finish_reasons='["tool_calls"]')
    agent.chat(root, "azure/gpt-4o-mini", [user("Go"), calls(("m1", "t", {})), answers("m1", "x")], [says("Gone.")], gen_ai__usage__input_tokens=10,
               gen_ai__usage__output_tokens=1, gen_ai__usage__cache_read__input_tokens=8, gen_ai__response__finish_reasons=("stop", "length"))
    agent.end(root)


def http_root(agent):
    """An agent within a server's request."""
    root = agent.begin("POST /chat", http__method="POST")
    inner = agent.begin("invoke_agent inner", root, gen_ai__operation__name="invoke_agent", gen_ai__agent__name="inner")
    agent.chat(inner, "gpt-4o", [user("Hi 👋 “there”")], [says("Grüß dich! 🌞\nZweite Zeile")])
    agent.end(inner)
    agent.end(root)


def bare_calls(agent):
    """Two calls of one turn and one of another, without a root, each with its own messages."""
    wanted = calls(("x1", "find", {"k": "v"}))
    agent.chat(None, "gpt-4o", [user("Find it")], [wanted])
    agent.chat(None, "gpt-4o", [user("Find it"), wanted, answers("x1", "found")], [says("Found.")])
    agent.chat(None, "gpt-4o", [user("Anything else?")], [says("No.")])


def under_an_open_root(agent):
    """Two turns within a span that has not ended when the session has."""
    outer = agent.begin("main")
    for number in (1, 2):
        root = agent.begin("invoke_agent sub", outer, gen_ai__operation__name="invoke_agent", gen_ai__agent__name="sub")
        agent.chat(root, "gpt-4o", [user(f"Question {number}")], [says(f"Answer {number}")])
        agent.end(root)


def no_content(agent):
    """Nothing of what was said was captured."""
    root = agent.begin("invoke_agent silent", gen_ai__operation__name="invoke_agent", gen_ai__agent__name="silent")
    agent.chat(root, "gpt-4o", None, None, gen_ai__usage__input_tokens=5, gen_ai__usage__output_tokens=1)
    agent.tool(root, "t", gen_ai__tool__call__id="n1")
    agent.end(root)


def nothing(agent):
    """A session without a model."""
    agent.end(agent.begin("GET /"))


SCENARIOS = [single_turn, history, logged_turns, logged_turns_untimed, logged_agent, yes_twice, adk, adk_ids, strands, langchain, errors,
             tools_without_ids, parallel_tools, models, http_root, bare_calls, under_an_open_root, no_content, nothing]


# --- the client -------------------------------------------------------------------------------------------------------------------

class Updates:
    """Everything that `/stream/ui-updates` says, by session."""

    def __init__(self, url):
        self.said, self.changed = {}, threading.Condition()
        self.stream = urllib.request.urlopen(url + "/stream/ui-updates", timeout=PATIENCE_SECONDS * 6)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.stream:
            if line.startswith(b"data:"):
                event = json.loads(line[5:])
                session = event.get("sessionId") or (event.get("session") or {}).get("sessionId")
                with self.changed:
                    self.said.setdefault(session, []).append(event)
                    self.changed.notify_all()

    def complete(self, session, times=1):
        """What was said of the session once it was said to be complete."""
        def is_complete():
            return sum(event.get("type") == "session_complete" for event in self.said.get(session, [])) >= times
        with self.changed:
            self.changed.wait_for(is_complete, PATIENCE_SECONDS)
            return list(self.said.get(session, []))


async def ended_again(ws_url, session):
    """A client that waits for its answer."""
    import websockets

    async with websockets.connect(ws_url, max_size=None) as socket:
        await socket.send(json.dumps({"type": "session_end", "session_id": session}))
        return json.loads(await asyncio.wait_for(socket.recv(), PATIENCE_SECONDS))


async def told(ws_url, session, scenario, seed):
    processor = AgentEvalsStreamingProcessor(ws_url, session, f"{seed:032x}")
    await processor.connect(eval_set_id="set-1", metadata={"model": "m", "number": seed})
    scenario(Agent(seed, processor))
    await asyncio.sleep(0)
    await processor.shutdown_async()


async def by_context_manager(ws_url, session):
    """`enable_streaming` adds its processor to the global provider."""
    provider = TracerProvider(id_generator=Counting(90), shutdown_on_exit=False)
    trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE._done = provider, True
    async with enable_streaming(ws_url, eval_set_id="set-2", session_name=session):
        single_turn(Agent(90, provider=provider))
        await asyncio.sleep(0)


async def by_sdk_async(ws_url, session):
    provider = TracerProvider(id_generator=Counting(91), shutdown_on_exit=False)
    app = AgentEvals(ws_url=ws_url, eval_set_id="set-3", metadata={"a": 1}, auto_instrument=False)
    async with app.session_async(session_name=session, metadata={"b": 2}, tracer_provider=provider):
        history(Agent(91, provider=provider))
        await asyncio.sleep(0)


def by_sdk(ws_url, session):
    provider = TracerProvider(id_generator=Counting(92), shutdown_on_exit=False)
    app = AgentEvals(ws_url=ws_url, auto_instrument=False)
    with app.session(session_name=session, tracer_provider=provider):
        yes_twice(Agent(92, provider=provider))


def by_decorator(ws_url, session):
    """`@agent` and `run` name their session themselves; here it is named for them."""
    provider = TracerProvider(id_generator=Counting(93), shutdown_on_exit=False)
    trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE._done = provider, True
    app = AgentEvals(ws_url=ws_url, auto_instrument=False)
    app._generate_session_id = lambda: session
    speaker = Agent(93, provider=provider)

    @app.agent
    def reply(prompt):
        speaker.chat(None, "gpt-4o", [user(prompt)], [says(prompt.upper())])
        return prompt.upper()

    sys.stdout, kept = sys.stderr, sys.stdout
    try:
        app.run(["one", "two"])
    finally:
        sys.stdout = kept


def frames_of(seed, scenario):
    """What the client would send of a scenario."""
    frames = []

    class Kept(AgentEvalsStreamingProcessor):
        def on_end(self, span):
            frames.append(self._span_to_otlp(span))

    agent = Agent(seed)
    agent.provider.add_span_processor(Kept("", "", ""))
    scenario(agent)
    return frames


async def by_hand(url, ws_url, updates, report):
    """What the shipped client never does: two sessions on a connection, going on after a connection was lost, limits, frames that are none."""
    import websockets

    def frame(kind, session, **fields):
        return json.dumps({"type": kind, "session_id": session, **fields})

    async def answer(socket):
        return json.loads(await asyncio.wait_for(socket.recv(), PATIENCE_SECONDS))

    one, two = frames_of(94, single_turn), frames_of(95, yes_twice)
    async with websockets.connect(ws_url, max_size=None) as socket:
        for session in ("pair-1", "pair-2"):
            await socket.send(frame("session_start", session, trace_id="a" * 32))
        for first, second in zip(one, two):
            await socket.send(frame("span", "pair-1", span=first))
            await socket.send(frame("span", "pair-2", span=second))
        await socket.send(frame("heartbeat", "pair-1"))
        await socket.send(frame("span", "nobody", span=one[0]))
        await socket.send(frame("session_end", "nobody"))
        await socket.send(frame("session_end", "pair-2"))
        await socket.send(frame("session_end", "pair-1"))
        report("two sessions: in the order of their ends", "pair-2", await answer(socket))
        report("two sessions: the other", "pair-1", await answer(socket))

    async with websockets.connect(ws_url) as socket:
        await socket.send(frame("session_start", "resumed", trace_id="b" * 32, metadata={"x": [1]}))
        for span in one[:2]:
            await socket.send(frame("span", "resumed", span=span))
    async with websockets.connect(ws_url, max_size=None) as socket:
        for span in one[2:]:
            await socket.send(frame("span", "resumed", span=span))
        await socket.send(frame("session_end", "resumed"))
        report("a session that goes on over another connection", "resumed", await answer(socket))
        # After its end, one more turn.
        for span in two:
            await socket.send(frame("span", "resumed", span=span))
        await socket.send(frame("session_end", "resumed"))
        report("and after its end", "resumed", await answer(socket))
        await socket.send(frame("session_start", "resumed", trace_id="c" * 32))
        for span in two[:2]:
            await socket.send(frame("span", "resumed", span=span))
        await socket.send(frame("session_end", "resumed"))
        report("a session that is begun anew forgets", "resumed", await answer(socket))

    async with websockets.connect(ws_url, max_size=None) as socket:
        await socket.send(frame("session_start", "limits", trace_id="d" * 32))
        log = {"event_name": "gen_ai.user.message", "timestamp": str(EPOCH), "body": {"content": "x"}}
        for _ in range(5_002):
            await socket.send(frame("log", "limits", log=log))
        report("a log too many", "limits", await answer(socket))
        report("another log", "limits", await answer(socket))
        small = {"traceId": "e" * 32, "spanId": "", "parentSpanId": None, "name": "s", "startTimeUnixNano": "1", "endTimeUnixNano": "2", "attributes": []}
        for number in range(10_002):
            await socket.send(frame("span", "limits", span={**small, "spanId": f"{number + 1:016x}"}))
        report("a span too many", "limits", await answer(socket))
        report("another span", "limits", await answer(socket))
        await socket.send(frame("session_end", "limits"))
        report("its end", "limits", await answer(socket))


def by_otlp(url, otlp_url, only):
    """Version 0.11: the same agents in the sessions of its SDK."""
    logs = LoggerProvider(shutdown_on_exit=False)
    set_logger_provider(logs)
    app = AgentEvals(endpoint=otlp_url, eval_set_id="set-4", metadata={"a": 1}, auto_instrument=False)
    for seed, scenario in enumerate(SCENARIOS, 1):
        name = scenario.__name__
        if only and name not in only:
            continue
        session = "o-" + name.replace("_", "-")
        provider = TracerProvider(id_generator=Counting(seed), shutdown_on_exit=False)
        with app.session(session_name=session, tracer_provider=provider):
            scenario(Agent(seed, provider=provider, logs=logs))
        give_up = time.monotonic() + PATIENCE_SECONDS
        found = []
        while not any(each["isComplete"] for each in found) and time.monotonic() < give_up:
            time.sleep(0.1)
            found = listed(url, session)
        print(json.dumps({"scenario": name, "session": session, "listed": found, "conversation": conversation(url, session)}), flush=True)


def conversation(url, session):
    """The session as an eval case."""
    body = json.dumps({"session_id": session, "eval_set_id": "golden"}).encode()
    request = urllib.request.Request(url + "/api/streaming/create-eval-set", body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as response:
            made = json.load(response)["data"]["evalSet"]
            return [turn for case in made["eval_cases"] for turn in case["conversation"]]
    except urllib.error.HTTPError as refused:
        return refused.code


def listed(url, session):
    with urllib.request.urlopen(url + "/api/streaming/sessions", timeout=PATIENCE_SECONDS) as response:
        return [each for each in json.load(response)["data"] if each["sessionId"] == session]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--otlp")
    options = parser.parse_args()
    url, only = options.url.rstrip("/"), set(options.names)
    if options.otlp:
        return by_otlp(url, options.otlp, only)
    ws_url = url.replace("http", "ws", 1) + "/ws/traces"
    updates = Updates(url)

    def report(name, session, answer, said=None):
        print(json.dumps({"scenario": name, "session": session, "answer": answer, "updates": said, "listed": listed(url, session),
                          "conversation": conversation(url, session)}), flush=True)

    def tell(name, run):
        if only and name not in only:
            return
        session = "s-" + name.replace("_", "-")
        run(session)
        said = updates.complete(session)
        answer = asyncio.run(ended_again(ws_url, session))
        report(name, session, answer, said)

    for seed, scenario in enumerate(SCENARIOS, 1):
        tell(scenario.__name__, lambda session: asyncio.run(told(ws_url, session, scenario, seed)))
    tell("by_context_manager", lambda session: asyncio.run(by_context_manager(ws_url, session)))
    tell("by_sdk_async", lambda session: asyncio.run(by_sdk_async(ws_url, session)))
    tell("by_sdk", lambda session: by_sdk(ws_url, session))
    tell("by_decorator", lambda session: by_decorator(ws_url, session))
    if not only or "by_hand" in only:
        asyncio.run(by_hand(url, ws_url, updates, report))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""A moving multi-agent run, sent to Tailspan: something to watch before you have instrumented anything.

Every round is one new trace of about forty seconds: an orchestrator, three agents, model calls, tools, one tool that fails and is
tried again. The spans are OTLP/JSON as an instrumented program would send them, each one twice: when it starts (no end time yet)
and when it ends. Beside it, agents of a mesh report native events to the trace abc123def456 for as long as the demo runs.

Needs nothing but Python's standard library.
"""

import argparse
import datetime
import json
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request

MESH_TRACE = "abc123def456"
MESH_AGENTS = ["dependent-service", "fastmcp-service", "system-agent"]

# A server on this machine is never behind a proxy.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def send(options, path, body, patience_seconds=30):
    """Posts JSON and returns the answer; waits for a server that is away, as an exporter would."""
    headers = {"content-type": "application/json"}
    if options.token:
        headers["authorization"] = f"Bearer {options.token}"
    request = urllib.request.Request(options.url + path, json.dumps(body).encode(), headers)
    give_up = time.monotonic() + patience_seconds
    while True:
        try:
            with opener.open(request, timeout=10) as response:
                return json.loads(response.read() or b"{}")
        except urllib.error.HTTPError as error:
            if error.code not in (429, 502, 503, 504) or time.monotonic() > give_up:
                sys.exit(f"demo: {path} answered {error.code}: {error.read(500).decode(errors='replace')}")
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > give_up:
                sys.exit(f"demo: {options.url} does not answer: {error}")
        time.sleep(0.5)


# --- OTLP ---------------------------------------------------------------------------------------------------------------------


def any_value(value):
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    return {"stringValue": value if isinstance(value, str) else json.dumps(value)}


def key_values(attributes):
    return [{"key": key, "value": any_value(value)} for key, value in attributes.items()]


def text(role, content):
    return {"role": role, "parts": [{"type": "text", "content": content}]}


class Run:
    """One trace: spans are sent at their start and at their end."""

    def __init__(self, options):
        self.options = options
        self.trace_id = os.urandom(16).hex()
        self.session = f"demo-{self.trace_id[:6]}"

    def span(self, name, parent=None, kind=1, **attributes):
        return Span(self, name, parent, kind, {key.replace("__", "."): value for key, value in attributes.items()})

    def pause(self, seconds):
        time.sleep(seconds / self.options.speed)

    def send(self, span, patience_seconds=30):
        resource = {"service.name": "travel-planner", "telemetry.sdk.language": "python"}
        scope_spans = {"scope": {"name": "demo"}, "spans": [span]}
        body = {"resourceSpans": [{"resource": {"attributes": key_values(resource)}, "scopeSpans": [scope_spans]}]}
        send(self.options, "/v1/traces", body, patience_seconds)


class Span:
    def __init__(self, run, name, parent, kind, attributes):
        self.run, self.attributes, self.error = run, attributes, None
        self.wire = {
            "traceId": run.trace_id,
            "spanId": os.urandom(8).hex(),
            "name": name,
            "kind": kind,
            "startTimeUnixNano": str(time.time_ns()),
        }
        if parent:
            self.wire["parentSpanId"] = parent.wire["spanId"]

    def __enter__(self):
        self.run.send({**self.wire, "attributes": key_values(self.attributes)})
        return self

    def __exit__(self, kind, error, _):
        if error is not None:
            self.error = error
        ended = {**self.wire, "endTimeUnixNano": str(time.time_ns())}
        if self.error is not None:
            self.attributes["error.type"] = type(self.error).__name__
            ended["status"] = {"code": 2, "message": str(self.error)}
        ended["attributes"] = key_values(self.attributes)
        # Interrupted: whoever stopped the demo has stopped the server too, or is about to.
        self.run.send(ended, 30 if error is None or isinstance(error, Exception) else 0)
        return False

    def set(self, **attributes):
        self.attributes.update({key.replace("__", "."): value for key, value in attributes.items()})


def agent(run, name, parent=None):
    return run.span(
        f"invoke_agent {name}", parent, gen_ai__operation__name="invoke_agent", gen_ai__agent__name=name,
        gen_ai__provider__name="anthropic", gen_ai__conversation__id=run.session,
    )


def think(run, parent, question, answer, tokens, seconds, model="claude-sonnet-4-5"):
    """A model call that is seen to run for `seconds`."""
    with run.span(
        f"chat {model}", parent, kind=3, gen_ai__operation__name="chat", gen_ai__provider__name="anthropic",
        gen_ai__request__model=model, gen_ai__input__messages=[text("user", question)],
    ) as call:
        run.pause(seconds)
        call.set(
            gen_ai__response__model=model, gen_ai__usage__input_tokens=tokens[0], gen_ai__usage__output_tokens=tokens[1],
            gen_ai__output__messages=[{**text("assistant", answer), "finish_reason": "stop"}],
        )


def use_tool(run, parent, name, arguments, seconds, result=None, error=None):
    with run.span(
        f"execute_tool {name}", parent, gen_ai__operation__name="execute_tool", gen_ai__tool__name=name,
        gen_ai__tool__type="function", gen_ai__tool__call__id=f"call_{os.urandom(4).hex()}",
        gen_ai__tool__call__arguments=arguments,
    ) as tool:
        run.pause(seconds)
        if error:
            tool.error = error
        else:
            tool.set(gen_ai__tool__call__result=result)


def plan_a_trip(run):
    wish = "Three days in Lisbon in May, by train if it is possible, and a quiet hotel."
    answer = "Night train via Hendaye, arriving 12 May 09:40. Casa do Jardim, quiet courtyard, three nights, 372 EUR."
    with agent(run, "trip-orchestrator") as root:
        root.set(gen_ai__input__messages=[text("user", wish)])
        think(run, root, wish, "Ask transport and lodging, then have the plan reviewed.", (412, 58), 2.5)
        with agent(run, "transport-agent", root) as transport:
            think(run, transport, "Find a train to Lisbon for 12 May.", "I look for connections.", (655, 41), 2)
            use_tool(run, transport, "search_trains", {"to": "Lisbon", "day": "2026-05-12"}, 3,
                     result={"connections": [{"via": "Hendaye", "arrives": "09:40"}, {"via": "Madrid", "arrives": "13:15"}]})
            think(run, transport, "Which connection is better?", "Via Hendaye: one change less.", (903, 66), 2.5)
        with agent(run, "lodging-agent", root) as lodging:
            think(run, lodging, "Find a quiet hotel for three nights.", "I look for rooms.", (701, 37), 2)
            rooms = {"city": "Lisbon", "nights": 3, "quiet": True}
            use_tool(run, lodging, "find_rooms", rooms, 4, error=TimeoutError("the booking service did not answer in 4 s"))
            think(run, lodging, "The search failed. What now?", "Once more, with fewer filters.", (842, 29), 1.5)
            use_tool(run, lodging, "find_rooms", {"city": "Lisbon", "nights": 3}, 2,
                     result={"rooms": [{"hotel": "Casa do Jardim", "eur": 372}, {"hotel": "Miradouro", "eur": 298}]})
            think(run, lodging, "Which room is quiet?", "Casa do Jardim, it faces a courtyard.", (1033, 52), 2)
        with agent(run, "review-agent", root) as review:
            think(run, review, "Does the plan meet the wish?", "Yes: train, three nights, quiet.", (1288, 74), 3, "claude-haiku-4-5")
        think(run, root, "Write the answer.", answer, (1420, 118), 3)
        root.set(gen_ai__output__messages=[{**text("assistant", answer), "finish_reason": "stop"}])


# --- Native events --------------------------------------------------------------------------------------------------------------


def mesh_event(options, agent_id, patience_seconds, event_type="agent_called"):
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    event = {"event_type": event_type, "agent_id": agent_id, "timestamp": now}
    send(options, f"/traces/{MESH_TRACE}/events", event, patience_seconds)


def mesh_calls(options, done):
    """One agent after the other is called, until the demo ends."""
    count = 1
    while not done.wait(2 / options.speed):
        mesh_event(options, MESH_AGENTS[count % len(MESH_AGENTS)], 30)
        count += 1
    mesh_event(options, MESH_AGENTS[-1], 0, "workflow_completed")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8001", help="where Tailspan listens (default: %(default)s)")
    parser.add_argument("--token", default=os.environ.get("TAILSPAN_TOKEN", ""), help="sent as a bearer token")
    parser.add_argument("--rounds", type=int, default=20, help="runs to send, one after the other (default: %(default)s)")
    parser.add_argument("--speed", type=float, default=1.0, help="2 is twice as fast (default: %(default)s)")
    options = parser.parse_args()
    options.url = options.url.rstrip("/")
    # Stopped by Ctrl-C or by the script that started it, the demo still ends its mesh trace.
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    auth = f"-H 'Authorization: Bearer {options.token}' " if options.token else ""
    done = threading.Event()
    mesh = threading.Thread(target=mesh_calls, args=(options, done), daemon=True)
    try:
        mesh_event(options, MESH_AGENTS[0], 30)
        mesh.start()
        for round_number in range(1, options.rounds + 1):
            run = Run(options)
            print(f"demo: run {round_number} of {options.rounds} is moving; watch it in a browser, or from another terminal:", flush=True)
            print(f"  {options.url}/runs/{run.trace_id}" + (f"?token={options.token}" if options.token else ""), flush=True)
            print(f"  curl -N {auth}{options.url}/traces/{run.trace_id}/stream", flush=True)
            if round_number == 1:
                print(f"  curl -N {auth}{options.url}/traces/{MESH_TRACE}/stream", flush=True)
            plan_a_trip(run)
            run.pause(3)
    except KeyboardInterrupt:
        pass
    done.set()
    if mesh.is_alive():
        mesh.join(timeout=2)


if __name__ == "__main__":
    main()

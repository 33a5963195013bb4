#!/usr/bin/env python3
"""One agent of a chain: it thinks, asks a model (a made-up one), uses a tool, and hands over to the next agent over HTTP.

    AGENT=planner NEXT_AGENT=http://researcher:8010 python3 agent.py     serves POST /run and GET /health on port 8010
    python3 agent.py --health                                            exits with 0 when the one on this machine answers

What Tailspan needs of it is only what any OpenTelemetry program does: spans of the GenAI conventions, exported over HTTP to
OTEL_EXPORTER_OTLP_ENDPOINT, and the context (`traceparent`) handed on with every call, which makes the whole chain one run.

FAIL_EVERY=3      every third call of this agent's tool fails, and with it the run
EVERY_SECONDS=20  starts a run by itself so often
STEP_SECONDS=0.4  how long a step takes
"""

import http.server
import json
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request

PORT = int(os.environ.get("PORT", "8010"))
AGENT = os.environ.get("AGENT", "agent")
NEXT_AGENT = os.environ.get("NEXT_AGENT", "")
FAIL_EVERY = int(os.environ.get("FAIL_EVERY", "0"))
EVERY_SECONDS = float(os.environ.get("EVERY_SECONDS", "0"))
STEP_SECONDS = float(os.environ.get("STEP_SECONDS", "0.4"))
BODY_BYTES = 64 * 1024

# Agents of a chain speak to each other directly, whatever proxy this machine uses for the rest of the world.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

if "--health" in sys.argv:
    with opener.open(f"http://127.0.0.1:{PORT}/health", timeout=3) as answer:
        sys.exit(answer.status != 200)

from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider(resource=Resource.create({"service.name": AGENT}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
tracer = provider.get_tracer("examples.chain")

calls_lock = threading.Lock()
calls = 0


class ToolFailed(Exception):
    """The made-up tool does not do what it is asked for."""


def ask_model(question):
    """A model call as an instrumented client would tell of it."""
    attributes = {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "example", "gen_ai.request.model": "made-up-1",
        "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": question}]}]),
    }
    with tracer.start_as_current_span("chat made-up-1", attributes=attributes) as span:
        time.sleep(STEP_SECONDS)
        words = len(question.split())
        said = f"{AGENT} has thought about {words} words"
        span.set_attribute("gen_ai.usage.input_tokens", words)
        span.set_attribute("gen_ai.usage.output_tokens", len(said.split()))
        answer = [{"role": "assistant", "parts": [{"type": "text", "content": said}], "finish_reason": "stop"}]
        span.set_attribute("gen_ai.output.messages", json.dumps(answer))
        return said


def use_tool(argument):
    """A tool call; every FAIL_EVERYth of this process fails."""
    global calls
    with calls_lock:
        calls += 1
        fails = FAIL_EVERY > 0 and calls % FAIL_EVERY == 0
    attributes = {
        "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": f"{AGENT}_tool",
        "gen_ai.tool.call.arguments": json.dumps({"about": argument}),
    }
    with tracer.start_as_current_span(f"execute_tool {AGENT}_tool", attributes=attributes) as span:
        time.sleep(STEP_SECONDS)
        if fails:
            # Leaving the block with an exception records it and marks the span as failed.
            raise ToolFailed(f"the tool of {AGENT} does not answer")
        span.set_attribute("gen_ai.tool.call.result", json.dumps({"found": argument}))


def hand_over(task):
    """Asks the next agent, with the context of the span that is current."""
    headers = {"content-type": "application/json"}
    propagate.inject(headers)
    request = urllib.request.Request(f"{NEXT_AGENT}/run", json.dumps({"task": task}).encode(), headers)
    try:
        with opener.open(request, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise ToolFailed(json.loads(error.read(BODY_BYTES)).get("error", "the next agent failed")) from error


def run(task, context):
    """What this agent does for a task. Returns (status, answer); the trace id is in the answer, for whoever wants to watch."""
    attributes = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": AGENT}
    trace_id = ""
    try:
        with tracer.start_as_current_span(f"invoke_agent {AGENT}", context=context, attributes=attributes) as span:
            trace_id = f"{span.get_span_context().trace_id:032x}"
            said = ask_model(task)
            use_tool(task)
            steps = [said]
            if NEXT_AGENT:
                steps += hand_over(task)["steps"]
            return 200, {"trace_id": trace_id, "steps": steps}
    except (ToolFailed, OSError, ValueError, KeyError) as error:
        return 502, {"trace_id": trace_id, "error": str(error)}


def run_in_background(task):
    """Starts a run of the whole chain and returns its trace id before it has begun, so that it can be watched from its first event."""
    begun, trace_ids = threading.Event(), []

    def work():
        # A root span that is open until the chain has ended; its id is the run's.
        with tracer.start_as_current_span("run", attributes={"gen_ai.operation.name": "invoke_workflow"}) as span:
            trace_ids.append(f"{span.get_span_context().trace_id:032x}")
            begun.set()
            status, answer = run(task, None)
            if status != 200:
                span.set_status(trace.StatusCode.ERROR, answer["error"])
            print(json.dumps({"status": status} | answer), flush=True)

    threading.Thread(target=work, daemon=True).start()
    begun.wait()
    return trace_ids[0]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200 if self.path == "/health" else 404, {"agent": AGENT})

    def do_POST(self):
        if self.path != "/run":
            return self.answer(404, {"error": "only /run can be asked for"})
        try:
            length = min(int(self.headers.get("content-length") or 0), BODY_BYTES)
            task = str(json.loads(self.rfile.read(length) or b"{}").get("task", "Where is it warm in March?"))
        except (ValueError, AttributeError):
            return self.answer(400, {"error": "the body is not a JSON object"})
        if "traceparent" in self.headers:
            # A propagator looks for names in lower case; clients write them as they like.
            carried = {name.lower(): value for name, value in self.headers.items()}
            self.answer(*run(task, propagate.extract(carried)))
        else:
            trace_id = run_in_background(task)
            self.answer(202, {"trace_id": trace_id, "stream": f"/traces/{trace_id}/stream?wait=30s"})

    def answer(self, status, body):
        text = json.dumps(body).encode() + b"\n"
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        """Requests are told by spans."""


def main():
    server = http.server.ThreadingHTTPServer(("", PORT), Handler)
    server.daemon_threads = True
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    if EVERY_SECONDS > 0:
        def again():
            while True:
                run_in_background("Where is it warm in March?")
                time.sleep(EVERY_SECONDS)
        threading.Thread(target=again, daemon=True).start()
    server.serve_forever()
    # What has ended is sent before the process ends.
    provider.shutdown()


if __name__ == "__main__":
    main()

"""A multi-agent run as the Python SDK reports it: the SDK's own exporters, told nothing by the code.

Prints one line of JSON: the trace id, and what the SDK complained about (an exporter tells its own logger only, never the program).

PEERS_RESEARCHER   a command that does the researcher's part in another process, which gets TRACEPARENT
PEERS_NATIVE_URL   also report progress as a native event, with the headers that the SDK injects into any outgoing call
"""

import json
import logging
import os
import shlex
import subprocess
import urllib.request

from opentelemetry import metrics, propagate, trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode

complaints = []


class Complaints(logging.Handler):
    def emit(self, record):
        complaints.append(record.getMessage())


logging.getLogger().addHandler(Complaints(logging.WARNING))

resource = Resource.create({"service.name": "trips-python"})
spans = TracerProvider(resource=resource)
spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
logs = LoggerProvider(resource=resource)
logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())], resource=resource)
tracer = spans.get_tracer("trips")
logger = logs.get_logger("trips")
asked = meters.get_meter("trips").create_counter("questions_asked")


def step(operation, name, kind=SpanKind.INTERNAL, **attributes):
    """A span named and marked as the GenAI conventions want it."""
    genai = {"gen_ai." + key.replace("__", "."): value for key, value in attributes.items()}
    return tracer.start_as_current_span(
        f"{operation} {name}", kind=kind, attributes={"gen_ai.operation.name": operation, **genai}
    )


def agent(name):
    return step("invoke_agent", name, agent__name=name, conversation__id="trip-1")


def chat(model, input_tokens, output_tokens, **attributes):
    return step(
        "chat", model, SpanKind.CLIENT, provider__name="openai", request__model=model,
        response__model=f"{model}-2026", usage__input_tokens=input_tokens, usage__output_tokens=output_tokens, **attributes,
    )


def tool(name, call_id, arguments):
    return step(
        "execute_tool", name, tool__name=name, tool__call__id=call_id, tool__call__arguments=json.dumps(arguments)
    )


def said(role, content):
    return {"role": role, "parts": [{"type": "text", "content": content}]}


def called(call_id, name, arguments):
    return {"role": "assistant", "parts": [{"type": "tool_call", "id": call_id, "name": name, "arguments": arguments}]}


def report_progress():
    """A native event below the current span, named by nothing but the standard header."""
    headers = {"content-type": "application/json"}
    propagate.inject(headers)
    event = json.dumps({"event_type": "tool_progress", "agent_id": "researcher", "details": {"percent": 50}})
    request = urllib.request.Request(os.environ["PEERS_NATIVE_URL"], event.encode(), headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        if answer.headers["traceparent"] != headers["traceparent"]:
            complaints.append("traceparent did not come back")


def research():
    with agent("researcher"):
        with chat("large-1", 400, 80, response__finish_reasons=["tool_call"]):
            # Content that travels in a log record, as structure.
            details = {
                "gen_ai.operation.name": "chat",
                "gen_ai.input.messages": [said("user", "Book a room in Cádiz.")],
                "gen_ai.output.messages": [called("call-2", "book", {"place": "Cádiz", "nights": 3})],
            }
            logger.emit(event_name="gen_ai.client.inference.operation.details", attributes=details,
                        severity_number=SeverityNumber.DEBUG)
        with tool("book", "call-2", {"place": "Cádiz", "nights": 3}) as span:
            if "PEERS_NATIVE_URL" in os.environ:
                report_progress()
            error = TimeoutError("the hotel does not answer")
            span.record_exception(error)
            span.set_attribute("error.type", "TimeoutError")
            span.set_status(Status(StatusCode.ERROR, str(error)))


def research_elsewhere(command):
    carrier = {}
    propagate.inject(carrier)
    environment = os.environ | {"TRACEPARENT": carrier["traceparent"]}
    elsewhere = subprocess.run(shlex.split(command), env=environment, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    complaints.extend(json.loads(elsewhere.stdout)["complaints"])


with agent("planner") as root:
    asked.add(1)
    question = said("user", "Where is it warm in March?")
    answer = called("call-1", "look_up", {"month": "March"})
    with chat("small-1", 120, 30, input__messages=json.dumps([question]), output__messages=json.dumps([answer]),
              response__finish_reasons=["tool_call"]):
        pass
    with tool("look_up", "call-1", {"month": "March"}) as span:
        span.set_attribute("gen_ai.tool.call.result", json.dumps({"places": ["Cádiz", "Málaga"]}))
    if "PEERS_RESEARCHER" in os.environ:
        research_elsewhere(os.environ["PEERS_RESEARCHER"])
    else:
        research()
    with chat("small-1", 200, 50, response__finish_reasons=["stop"]):
        # Content as older instrumentations send it: a log record for each message.
        logger.emit(event_name="gen_ai.choice", severity_number=SeverityNumber.INFO, body={
            "index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Go to Cádiz. 🌞"},
        })
    logger.emit(body="planned a trip", severity_number=SeverityNumber.INFO)

for provider in (spans, logs, meters):
    provider.shutdown()
print(json.dumps({"trace_id": f"{root.get_span_context().trace_id:032x}", "complaints": complaints}))

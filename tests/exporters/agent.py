"""A program as users have it: the SDK's own exporters, told nothing by the code. Prints its trace id and what went wrong."""

import logging
import sys

from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

complaints = []


class Complaints(logging.Handler):
    """Exporters report what they could not deliver to their own loggers only."""

    def emit(self, record):
        complaints.append(record.getMessage())


logging.getLogger("opentelemetry").addHandler(Complaints(logging.WARNING))

traces = TracerProvider()
traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
logs = LoggerProvider()
logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())])
agent_log = logging.getLogger("agent")
agent_log.addHandler(LoggingHandler(logger_provider=logs))

tracer = trace.get_tracer("agent", tracer_provider=traces)
with tracer.start_as_current_span("invoke_agent checker") as root:
    root.set_attributes({"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "checker"})
    with tracer.start_as_current_span("chat small", kind=trace.SpanKind.CLIENT) as call:
        usage = {"gen_ai.usage.input_tokens": 11, "gen_ai.usage.output_tokens": 7}
        call.set_attributes({"gen_ai.operation.name": "chat", "gen_ai.request.model": "small", **usage})
    with tracer.start_as_current_span("execute_tool look") as tool:
        tool.set_attributes({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "look"})
    agent_log.warning("looked twice")
    metrics.get_meter("agent", meter_provider=meters).create_counter("calls").add(1)

for provider in (traces, logs, meters):
    provider.shutdown()
print(f"{root.get_span_context().trace_id:032x}")
sys.exit("; ".join(complaints) or 0)

// A program as users have it: the SDK's own exporters, told nothing by the code. Prints its trace id and what went wrong.
// CHECK_EXPORTER chooses the package, which is how JavaScript users choose the encoding.

import { context, diag, DiagLogLevel, SpanKind, trace } from '@opentelemetry/api';
import { NodeTracerProvider, BatchSpanProcessor } from '@opentelemetry/sdk-trace-node';
import { BatchLogRecordProcessor, LoggerProvider } from '@opentelemetry/sdk-logs';
import { OTLPLogExporter } from '@opentelemetry/exporter-logs-otlp-http';

const complaints = [];
const complain = (...words) => complaints.push(words.join(' '));
diag.setLogger({ error: complain, warn: complain, info() {}, debug() {}, verbose() {} }, DiagLogLevel.WARN);

const { OTLPTraceExporter } = await import(process.env.CHECK_EXPORTER);
const traces = new NodeTracerProvider({ spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter())] });
traces.register();
const logs = new LoggerProvider({ processors: [new BatchLogRecordProcessor({ exporter: new OTLPLogExporter() })] });

const tracer = trace.getTracer('agent');
const root = tracer.startSpan('invoke_agent checker', {
  attributes: { 'gen_ai.operation.name': 'invoke_agent', 'gen_ai.agent.name': 'checker' },
});
const within = trace.setSpan(context.active(), root);
const usage = { 'gen_ai.usage.input_tokens': 11, 'gen_ai.usage.output_tokens': 7 };
const chat = { 'gen_ai.operation.name': 'chat', 'gen_ai.request.model': 'small', ...usage };
tracer.startSpan('chat small', { kind: SpanKind.CLIENT, attributes: chat }, within).end();
const tool = { 'gen_ai.operation.name': 'execute_tool', 'gen_ai.tool.name': 'look' };
tracer.startSpan('execute_tool look', { attributes: tool }, within).end();
logs.getLogger('agent').emit({ body: 'looked twice', context: within });
root.end();

await traces.shutdown();
await logs.shutdown();
console.log(root.spanContext().traceId);
if (complaints.length > 0) {
  console.error(complaints.join('; '));
  process.exit(1);
}

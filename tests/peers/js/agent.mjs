// The run of ../python/agent.py as the JavaScript SDK reports it: the same steps, the same words, the same numbers.
// Prints one line of JSON: the trace id, and what the SDK complained about.
//
// PEERS_SETUP     proto, http: providers and exporters put together by hand, which is how users choose the encoding;
//                 node: the all-in-one NodeSDK, which reads OTEL_EXPORTER_OTLP_PROTOCOL
// TRACEPARENT     only do the researcher's part, below this span of another process

import { context, diag, DiagLogLevel, metrics, propagation, ROOT_CONTEXT, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import { logs, SeverityNumber } from '@opentelemetry/api-logs';

const SERVICE = 'trips-javascript';
const complaints = [];
const complain = (...words) => complaints.push(words.map(String).join(' '));
diag.setLogger({ error: complain, warn: complain, info() {}, debug() {}, verbose() {} }, DiagLogLevel.WARN);

/** Registers the SDK; returns what ends it. */
async function byHand(encoding) {
  const [{ OTLPTraceExporter }, { OTLPLogExporter }, { OTLPMetricExporter }, sdk, logging, measuring, of] = await Promise.all([
    import(`@opentelemetry/exporter-trace-otlp-${encoding}`),
    import(`@opentelemetry/exporter-logs-otlp-${encoding}`),
    import(`@opentelemetry/exporter-metrics-otlp-${encoding}`),
    import('@opentelemetry/sdk-trace-node'),
    import('@opentelemetry/sdk-logs'),
    import('@opentelemetry/sdk-metrics'),
    import('@opentelemetry/resources'),
  ]);
  const resource = of.resourceFromAttributes({ 'service.name': SERVICE });
  const spanProcessors = [new sdk.BatchSpanProcessor(new OTLPTraceExporter())];
  const spans = new sdk.NodeTracerProvider({ resource, spanProcessors });
  spans.register();
  const processors = [new logging.BatchLogRecordProcessor({ exporter: new OTLPLogExporter() })];
  const records = new logging.LoggerProvider({ resource, processors });
  logs.setGlobalLoggerProvider(records);
  const reader = new measuring.PeriodicExportingMetricReader({ exporter: new OTLPMetricExporter() });
  const meters = new measuring.MeterProvider({ resource, readers: [reader] });
  metrics.setGlobalMeterProvider(meters);
  return async () => {
    for (const provider of [spans, records, meters]) await provider.shutdown();
  };
}

async function allInOne() {
  const { NodeSDK } = await import('@opentelemetry/sdk-node');
  const sdk = new NodeSDK({ serviceName: SERVICE });
  sdk.start();
  return () => sdk.shutdown();
}

const setup = process.env.PEERS_SETUP ?? 'proto';
const shutdown = await (setup === 'node' ? allInOne() : byHand(setup));
const tracer = trace.getTracer('trips');
const logger = logs.getLogger('trips');
const asked = metrics.getMeter('trips').createCounter('questions_asked');

/** A span around `inside`, named and marked as the GenAI conventions want it. */
function step(operation, name, attributes, inside = () => {}, kind = SpanKind.INTERNAL) {
  const genai = Object.entries(attributes).map(([key, value]) => [`gen_ai.${key}`, value]);
  const options = { kind, attributes: { 'gen_ai.operation.name': operation, ...Object.fromEntries(genai) } };
  return tracer.startActiveSpan(`${operation} ${name}`, options, (span) => {
    inside(span);
    span.end();
    return span;
  });
}

const agent = (name, inside) => step('invoke_agent', name, { 'agent.name': name, 'conversation.id': 'trip-1' }, inside);

function chat(model, inputTokens, outputTokens, attributes, inside) {
  const usage = { 'usage.input_tokens': inputTokens, 'usage.output_tokens': outputTokens };
  const models = { 'provider.name': 'openai', 'request.model': model, 'response.model': `${model}-2026` };
  return step('chat', model, { ...models, ...usage, ...attributes }, inside, SpanKind.CLIENT);
}

function tool(name, callId, args, inside) {
  const call = { 'tool.name': name, 'tool.call.id': callId, 'tool.call.arguments': JSON.stringify(args) };
  return step('execute_tool', name, call, inside);
}

const said = (role, content) => ({ role, parts: [{ type: 'text', content }] });
const called = (id, name, args) => ({ role: 'assistant', parts: [{ type: 'tool_call', id, name, arguments: args }] });

function research() {
  return agent('researcher', () => {
    chat('large-1', 400, 80, { 'response.finish_reasons': ['tool_call'] }, () => {
      // Content that travels in a log record, as structure.
      logger.emit({
        eventName: 'gen_ai.client.inference.operation.details',
        severityNumber: SeverityNumber.DEBUG,
        attributes: {
          'gen_ai.operation.name': 'chat',
          'gen_ai.input.messages': [said('user', 'Book a room in Cádiz.')],
          'gen_ai.output.messages': [called('call-2', 'book', { place: 'Cádiz', nights: 3 })],
        },
      });
    });
    tool('book', 'call-2', { place: 'Cádiz', nights: 3 }, (span) => {
      const error = Object.assign(new Error('the hotel does not answer'), { name: 'TimeoutError' });
      span.recordException(error);
      span.setAttribute('error.type', 'TimeoutError');
      span.setStatus({ code: SpanStatusCode.ERROR, message: error.message });
    });
  });
}

function plan() {
  return agent('planner', () => {
    asked.add(1);
    const messages = {
      'input.messages': JSON.stringify([said('user', 'Where is it warm in March?')]),
      'output.messages': JSON.stringify([called('call-1', 'look_up', { month: 'March' })]),
    };
    chat('small-1', 120, 30, { ...messages, 'response.finish_reasons': ['tool_call'] });
    tool('look_up', 'call-1', { month: 'March' }, (span) => {
      span.setAttribute('gen_ai.tool.call.result', JSON.stringify({ places: ['Cádiz', 'Málaga'] }));
    });
    research();
    chat('small-1', 200, 50, { 'response.finish_reasons': ['stop'] }, () => {
      // Content as older instrumentations send it: a log record for each message.
      const message = { role: 'assistant', content: 'Go to Cádiz. 🌞' };
      logger.emit({
        eventName: 'gen_ai.choice',
        severityNumber: SeverityNumber.INFO,
        body: { index: 0, finish_reason: 'stop', message },
      });
    });
    logger.emit({ body: 'planned a trip', severityNumber: SeverityNumber.INFO });
  });
}

const traceparent = process.env.TRACEPARENT;
const root = traceparent ? context.with(propagation.extract(ROOT_CONTEXT, { traceparent }), research) : plan();
await shutdown();
console.log(JSON.stringify({ trace_id: root.spanContext().traceId, complaints }));

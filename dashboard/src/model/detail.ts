/** One step with all that is known of it, out of what the server answers: typed where its kind is known, and as it came in any case. */
import { chunks, type Chunk } from './conversation';
import { milliseconds, type StreamEvent } from './event';
import { isRecord, messages, type Message } from './said';

export type Sort = 'llm' | 'tool' | 'retrieval' | 'other';

export interface Detail {
  sort: Sort;
  facts: Fact[];
  /** Of a model call all messages that it was sent, the new ones last. */
  sent: Message[];
  /** How many of them stand before the new ones. */
  earlier: number;
  answer: Message[];
  thinking: string | null;
  parameters: [string, unknown][];
  tool: { name: string; args: unknown; result: unknown } | null;
  retrieval: { query: string | null; chunks: Chunk[]; total: number | null; facts: Fact[] } | null;
  /** Of other steps what they were given and gave back. */
  input: unknown;
  output: unknown;
  errors: Problem[];
  events: Happening[];
  attributes: Attribute[];
  links: { trace: string; span: string }[];
}

export interface Fact {
  label: string;
  value: string;
  /** How it is written: as a name, a number of tokens, dollars, a duration or a moment. */
  as: 'text' | 'count' | 'usd' | 'ms' | 'time';
}

export interface Problem {
  type: string;
  message: string;
  stack: string | null;
  /** Milliseconds since 1970; `null` when it is not told. */
  at: number | null;
}

export interface Happening {
  name: string;
  at: number | null;
  attributes: [string, unknown][];
}

export interface Attribute {
  /** Where it stood: the span's own, its resource's, or a field of a native event that has no other place. */
  of: 'span' | 'resource' | 'details';
  key: string;
  value: unknown;
}

/**
 * What is shown of a step.
 *
 * @param agent whose step it is, as the run tells it.
 * @param events all that was told of it, in their order; one of a span, several of a native step. The last word holds, what it lacks is taken from those before.
 */
export function detail(events: readonly StreamEvent[], agent: string | null = null): Detail {
  const event = merged(events);
  const sort = sortOf(event);
  const input = event.input;
  const isCall = sort === 'llm';
  const sent = isCall ? messages(input, 'user') : [];
  const answered = sent.findLastIndex((one) => one.role === 'assistant');
  const spanEvents = Array.isArray(event.span_events) ? (event.span_events as unknown[]).map(happening) : [];
  return {
    sort,
    facts: factsOf(event, agent),
    sent,
    earlier: answered + 1 < sent.length ? answered + 1 : 0,
    answer: isCall ? messages(event.output, 'assistant') : [],
    thinking: event.thinking ?? null,
    parameters: Object.entries(event.parameters ?? {}),
    tool:
      event.tool == null
        ? null
        : { name: event.tool.name, args: event.tool.arguments ?? undefined, result: event.tool.result },
    retrieval: retrievalOf(event),
    input: isCall || (sort === 'tool' && event.tool?.arguments !== undefined) ? undefined : input,
    output: isCall || (sort === 'tool' && event.tool?.result !== undefined) ? undefined : event.output,
    errors: problems(event, spanEvents),
    events: spanEvents.filter((one) => one.name !== 'exception'),
    attributes: [
      ...list('span', event.attributes),
      ...list('details', event.attributes == null ? event.details : undefined),
      ...list('resource', event.resource),
    ],
    links: links(event),
  };
}

/** The attributes whose name or words hold what is searched, in whichever case; long values are looked at as far as that goes quickly. */
export function found(attributes: readonly Attribute[], search: string): Attribute[] {
  const wanted = search.trim().toLowerCase();
  if (wanted === '') return [...attributes];
  return attributes.filter(
    (one) =>
      one.key.toLowerCase().includes(wanted) || words(one.value).slice(0, 200_000).toLowerCase().includes(wanted),
  );
}

function words(value: unknown): string {
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? '');
}

function merged(events: readonly StreamEvent[]): StreamEvent {
  const last = events[events.length - 1];
  if (last === undefined) throw new Error('a step is told by at least one event');
  const all = { ...last };
  for (const event of [...events].reverse()) {
    for (const [key, value] of Object.entries(event)) {
      const known = all as Record<string, unknown>;
      if (known[key] === undefined || known[key] === null) known[key] = value;
    }
    if (event.tool != null && all.tool != null) {
      // A result may be null; what was not told is not there.
      const defined = Object.entries(all.tool).filter(
        ([key, value]) => value !== undefined && !(key === 'name' && value === ''),
      );
      all.tool = { ...event.tool, ...(Object.fromEntries(defined) as Partial<typeof event.tool>) };
    }
    all.details = { ...event.details, ...all.details };
  }
  return all;
}

function sortOf(event: StreamEvent): Sort {
  const kind: string = event.kind ?? event.event_type.split('_')[0] ?? '';
  if (kind === 'llm' || kind === 'llm_fetch') return 'llm';
  if (kind === 'tool' || kind === 'mcp') return 'tool';
  if (kind === 'retriever' || kind === 'reranker' || kind === 'retrieval') return 'retrieval';
  return 'other';
}

function factsOf(event: StreamEvent, agent: string | null): Fact[] {
  const facts: Fact[] = [];
  const add = (label: string, value: unknown, as: Fact['as'] = 'text'): void => {
    if (value === undefined || value === null || value === '') return;
    if (as !== 'text' && as !== 'time' && (typeof value !== 'number' || !Number.isFinite(value))) return;
    facts.push({ label, value: typeof value === 'string' ? value : (JSON.stringify(value) ?? ''), as });
  };
  const details: Record<string, unknown> = event.details ?? {};
  // Who names no agent is known by its service, which has a place of its own.
  add('Agent', event.agent_name ?? agent ?? (event.agent_id === event.service ? null : event.agent_id));
  add('Model', event.model);
  add('Answered by', details.response_model === event.model ? null : details.response_model);
  add('Provider', event.provider);
  add('Tool', event.tool?.name);
  add('Hand-off to', event.tool?.target);
  add('Call', event.tool?.call_id ?? details.call_id);
  add('Tool type', event.tool?.type);
  add('Finished', Array.isArray(details.finish_reasons) ? details.finish_reasons.map(String).join(', ') : null);
  add('Started', milliseconds(event.start_time) === null ? null : event.start_time, 'time');
  add('Duration', event.duration_ms, 'ms');
  add('First token', event.time_to_first_chunk_ms, 'ms');
  const usage = event.usage;
  if (usage != null) {
    add('Tokens in', usage.input_tokens, 'count');
    if (usage.cached_tokens > 0) add('From cache', usage.cached_tokens, 'count');
    if (usage.cache_write_tokens > 0) add('To cache', usage.cache_write_tokens, 'count');
    add('Tokens out', usage.output_tokens, 'count');
    if (usage.reasoning_tokens > 0) add('Reasoning', usage.reasoning_tokens, 'count');
  }
  add('Cost', event.cost_usd, 'usd');
  add('Service', event.service);
  add('Session', event.session_id);
  add('User', event.user_id);
  add('Span', event.span_id);
  return facts;
}

function retrievalOf(event: StreamEvent): Detail['retrieval'] {
  const told = event.retrieval;
  if (told == null) return null;
  const facts: Fact[] = [];
  const add = (label: string, value: unknown): void => {
    if (value !== undefined && value !== null) facts.push({ label, value: String(value), as: 'text' });
  };
  const bases = told.knowledge_bases ?? [];
  add('From', bases.length === 0 ? null : bases.join(', '));
  add('Asked for', told.top_k);
  add('Threshold', told.threshold);
  add('Reranked', told.rerank == null ? null : told.rerank ? 'yes' : 'no');
  return { query: told.query ?? null, chunks: chunks(told.chunks), total: told.chunks_total ?? null, facts };
}

function happening(value: unknown): Happening {
  const fields = isRecord(value) ? value : {};
  return {
    name: typeof fields.name === 'string' ? fields.name : '',
    at: milliseconds(typeof fields.time === 'string' ? fields.time : null),
    attributes: isRecord(fields.attributes) ? Object.entries(fields.attributes) : [],
  };
}

/** The errors of a step: the exceptions that it recorded, each once, and its own word where they do not say it. */
function problems(event: StreamEvent, spanEvents: readonly Happening[]): Problem[] {
  const found = new Map<string, Problem>();
  for (const one of spanEvents) {
    if (one.name !== 'exception') continue;
    const fields: Record<string, unknown> = Object.fromEntries(one.attributes);
    const said = (key: string): string => {
      const value = fields[`exception.${key}`];
      return typeof value === 'string' ? value : '';
    };
    const problem = { type: said('type'), message: said('message'), stack: said('stacktrace') || null, at: one.at };
    const key = `${problem.type}\u0000${problem.message}`;
    const before = found.get(key);
    if (before === undefined || before.stack === null) found.set(key, problem);
  }
  const own = event.error;
  if (own != null) {
    const message = own.message ?? '';
    const isSaid = [...found.values()].some(
      (one) => one.message !== '' && (message === '' || message.includes(one.message) || one.message.includes(message)),
    );
    if (!isSaid) return [{ type: own.type ?? '', message, stack: null, at: null }, ...found.values()];
  }
  return [...found.values()];
}

function list(of: Attribute['of'], value: unknown): Attribute[] {
  if (!isRecord(value)) return [];
  return Object.keys(value)
    .sort()
    .map((key) => ({ of, key, value: value[key] }));
}

function links(event: StreamEvent): Detail['links'] {
  const told: unknown = event.details?.links;
  if (!Array.isArray(told)) return [];
  return (told as unknown[]).flatMap((one) => {
    if (!isRecord(one) || typeof one.trace_id !== 'string' || typeof one.span_id !== 'string') return [];
    return [{ trace: one.trace_id, span: one.span_id }];
  });
}

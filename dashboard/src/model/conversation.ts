/**
 * What was asked, thought, called and answered in a run, turn by turn. Events come in any order and any number of times; `Talk` keeps what they tell of each
 * step, and `conversation` makes of it what is read from top to bottom.
 */
import { kindOf, kindOfType, milliseconds, type StreamEvent } from './event';
import type { Kind } from './run';
import { messages, sameKey, isRecord, type Call, type Message } from './said';

/** A turn as `GET /traces/{trace_id}/invocations` tells it. */
export interface Turn {
  invocationId: string;
  startedAt: string;
  userText: string;
  agentText: string;
}

export interface Conversation {
  turns: ShownTurn[];
  /** Steps whose words are not kept here, because there are too many: each can be opened. */
  withoutWords: number;
}

export interface ShownTurn {
  id: string;
  number: number;
  start: number | null;
  asked: string;
  /** The answer, when no step of the turn shows it. */
  answered: string;
  groups: Group[];
  inputTokens: number;
  outputTokens: number;
  cost: number | null;
  /** From the turn's start to the end of its last step, as far as they have ended. */
  durationMs: number | null;
}

/** Steps of one agent that follow one another. */
export interface Group {
  id: string;
  agent: string | null;
  steps: Step[];
}

interface Base {
  /** The span's id, under which the page knows the step. */
  id: string;
  seq: number;
  name: string;
  start: number;
  durationMs: number | null;
  state: 'open' | 'ok' | 'failed';
  error: { type: string; message: string } | null;
  /** Its words were too many to be kept here. */
  wordless: boolean;
}

export interface ModelStep extends Base {
  kind: 'llm';
  model: string | null;
  inputTokens: number | null;
  outputTokens: number | null;
  cachedTokens: number;
  reasoningTokens: number;
  cost: number | null;
  firstTokenMs: number | null;
  finish: string | null;
  thinking: string | null;
  /** What is new in it, and was not shown above. */
  added: Message[];
  /** Messages that it was sent besides: those before the new ones, and those that stand above already. */
  folded: number;
  answer: Message[];
  calls: AskedCall[];
}

/** A call that a model asked for. */
export interface AskedCall extends Call {
  /** The step that ran it, shown on its own; `null`: no step tells of it. */
  ranAs: string | null;
  /** What the model was told of it, where no step tells. */
  result: Message | null;
}

export interface ToolStep extends Base {
  kind: 'tool';
  tool: string;
  toolKind: string;
  target: string | null;
  /** `undefined`: not told. */
  args: unknown;
  result: unknown;
}

export interface RetrievalStep extends Base {
  kind: 'retrieval';
  query: string | null;
  chunks: Chunk[];
  total: number | null;
}

export interface Chunk {
  id: string | null;
  document: string | null;
  score: number | null;
  text: string;
}

/** Words outside of any call: a message, a thought, an error that somebody reported. */
export interface NoteStep extends Base {
  kind: 'note';
  role: string;
  said: Message[];
}

export type Step = ModelStep | ToolStep | RetrievalStep | NoteStep;

/** Characters of words that are kept of one run; steps beyond are shown without theirs. */
const MOST_CHARACTERS = 24_000_000;
/** Steps of one run that are kept at all. */
const MOST_STEPS = 20_000;

interface Facts {
  id: string;
  seq: number;
  lastSeq: number;
  kind: Kind | 'note';
  isNative: boolean;
  name: string;
  agent: string | null;
  parent: string | null;
  start: number;
  end: number | null;
  durationMs: number | null;
  failed: boolean;
  error: { type: string; message: string } | null;
  model: string | null;
  usage: StreamEvent['usage'];
  cost: number | null;
  firstTokenMs: number | null;
  finish: string | null;
  thinking: string | null;
  sent: number;
  input: unknown;
  output: unknown;
  tool: StreamEvent['tool'];
  retrieval: StreamEvent['retrieval'];
  session: string | null;
  wordless: boolean;
}

/** What the events of one run have told so far. */
export class Talk {
  /** Of spans of all kinds: whose they are, for the agent of a step and for calls that two spans tell of. */
  readonly #above = new Map<string, { parent: string | null; kind: Kind; agent: string | null }>();
  readonly #steps = new Map<string, Facts>();
  /** Words in log records that name a span. */
  readonly #told = new Map<string, { input: unknown; output: unknown; thinking: string | null }>();
  #characters = 0;
  /** Steps that were not even kept. */
  leftOut = 0;
  session: string | null = null;

  get size(): number {
    return this.#steps.size;
  }

  apply(event: StreamEvent): void {
    if (event.kind === 'log') this.#applyLog(event);
    else if (event.kind == null) this.#applyNative(event);
    else this.#applySpan(event);
    if (event.session_id != null && (this.session === null || event.parent_span_id == null))
      this.session = event.session_id;
  }

  #applySpan(event: StreamEvent): void {
    const id = event.span_id;
    if (id == null) return;
    const kind = kindOf(event.kind);
    const before = this.#above.get(id);
    this.#above.set(id, {
      parent: event.parent_span_id ?? before?.parent ?? null,
      kind,
      agent: event.agent_name ?? before?.agent ?? null,
    });
    if (kind === 'llm' || kind === 'tool' || kind === 'retrieval') {
      // What is embedded or reranked is no part of what was said.
      if (kind === 'retrieval' && event.kind !== 'retriever') return;
      this.#keep(id, kind, event);
    }
  }

  #applyNative(event: StreamEvent): void {
    const kind = kindOfType(event.event_type);
    const call = event.tool?.call_id ?? text(event.details?.call_id);
    if (kind === 'llm' || kind === 'tool' || kind === 'retrieval') {
      // As the server names the steps of native events that name no span.
      const id = event.span_id ?? (call === null ? `event:${String(event.seq)}` : `native:${kind}:${call}`);
      this.#keep(id, kind, event);
      return;
    }
    if (event.span_id != null && !this.#above.has(event.span_id))
      this.#above.set(event.span_id, {
        parent: event.parent_span_id ?? null,
        kind,
        agent: event.agent_name ?? null,
      });
    const says = event.thinking ?? event.output ?? event.error;
    const isNote = ['message_generated', 'thinking_completed', 'error_occurred'].includes(event.event_type);
    if (isNote && says != null) this.#keep(`event:${String(event.seq)}`, 'note', event);
  }

  #applyLog(event: StreamEvent): void {
    const hasWords = event.input != null || event.output != null || event.thinking != null;
    if (event.span_id != null && hasWords) {
      const before = this.#told.get(event.span_id);
      if (!this.#weigh([event.input, event.output, event.thinking])) return;
      this.#told.set(event.span_id, {
        input: joined(before?.input, event.input),
        output: joined(before?.output, event.output),
        thinking: event.thinking ?? before?.thinking ?? null,
      });
    } else if (hasWords || (event.error != null && event.span_id == null)) {
      this.#keep(`event:${String(event.seq)}`, 'note', event);
    }
  }

  #keep(id: string, kind: Facts['kind'], event: StreamEvent): void {
    const before = this.#steps.get(id);
    if (before === undefined && this.#steps.size >= MOST_STEPS) {
      this.leftOut += 1;
      return;
    }
    const isNative = event.kind == null;
    const end = milliseconds(event.end_time) ?? (isNative && !isStart(event) ? milliseconds(event.timestamp) : null);
    // Told again: of two words the one with the later end holds.
    const isOlder = before !== undefined && before.end !== null && (end === null || (end < before.end && !isNative));
    const hasRoom = this.#weigh([event.input, event.output, event.thinking, event.tool, event.retrieval]);
    const told = milliseconds(event.timestamp) ?? before?.start ?? 0;
    const start = milliseconds(event.start_time) ?? (event.duration_ms != null ? told - event.duration_ms : told);
    const fresh: Facts = {
      id,
      seq: event.seq,
      lastSeq: event.seq,
      kind,
      isNative,
      name: event.name ?? event.event_type,
      agent: event.agent_name ?? (isNative && event.agent_id !== '' ? event.agent_id : null),
      parent: event.parent_span_id ?? null,
      start,
      end,
      durationMs: event.duration_ms ?? null,
      failed: event.status === 'error' || event.error != null,
      error: event.error == null ? null : { type: event.error.type ?? '', message: event.error.message ?? '' },
      model: event.model ?? null,
      usage: event.usage ?? null,
      cost: event.cost_usd ?? null,
      firstTokenMs: event.time_to_first_chunk_ms ?? null,
      finish: finish(event),
      thinking: hasRoom ? (event.thinking ?? null) : null,
      sent: number(event.details?.input_messages) ?? 0,
      input: hasRoom ? event.input : undefined,
      output: hasRoom ? event.output : undefined,
      tool: event.tool == null || hasRoom ? event.tool : { ...event.tool, arguments: undefined, result: undefined },
      retrieval: hasRoom ? event.retrieval : null,
      session: event.session_id ?? null,
      wordless: !hasRoom,
    };
    if (before === undefined) {
      this.#steps.set(id, fresh);
      return;
    }
    const [older, newer] = isOlder ? [fresh, before] : [before, fresh];
    this.#steps.set(id, {
      ...newer,
      seq: Math.min(before.seq, event.seq),
      lastSeq: Math.max(before.lastSeq, event.seq),
      start: Math.min(older.start, newer.start),
      name: named(newer, older),
      agent: newer.agent ?? older.agent,
      parent: newer.parent ?? older.parent,
      durationMs:
        newer.durationMs ?? (newer.end === null ? null : Math.max(0, newer.end - Math.min(older.start, newer.start))),
      model: newer.model ?? older.model,
      usage: newer.usage ?? older.usage,
      cost: newer.cost ?? older.cost,
      finish: newer.finish ?? older.finish,
      thinking: newer.thinking ?? older.thinking,
      sent: Math.max(newer.sent, older.sent),
      input: newer.input ?? older.input,
      output: newer.output ?? older.output,
      tool: toolOf(newer.tool, older.tool),
      retrieval: retrievalOf(newer.retrieval, older.retrieval),
      error: newer.error ?? (newer.end === null ? older.error : null),
      wordless: newer.wordless || older.wordless,
    });
  }

  /** Takes room for words; `false` when there is none left. */
  #weigh(words: readonly unknown[]): boolean {
    if (this.#characters >= MOST_CHARACTERS) return false;
    for (const one of words) {
      if (one === undefined || one === null) continue;
      this.#characters += typeof one === 'string' ? one.length : JSON.stringify(one).length;
    }
    return true;
  }

  /** All steps in the order in which they began, calls that two spans tell of once. */
  steps(): { facts: Facts; agent: string | null }[] {
    const repeated = this.#repeated();
    return [...this.#steps.values()]
      .filter((facts) => !repeated.has(facts.id))
      .sort((a, b) => a.start - b.start || a.seq - b.seq)
      .map((facts) => ({ facts: this.#withLogs(facts), agent: facts.agent ?? this.#agentAbove(facts.parent) }));
  }

  #withLogs(facts: Facts): Facts {
    const told = this.#told.get(facts.id);
    if (told === undefined) return facts;
    return {
      ...facts,
      input: facts.input ?? told.input,
      output: facts.output ?? told.output,
      thinking: facts.thinking ?? told.thinking,
    };
  }

  #agentAbove(parent: string | null): string | null {
    // As many steps as there are spans at most: parents may form a ring.
    for (let at = parent, left = 200; at !== null && left > 0; left--) {
      const above = this.#above.get(at);
      if (above === undefined) return null;
      if (above.agent !== null) return above.agent;
      at = above.parent;
    }
    return null;
  }

  /** Wrappers: of two model calls, tools or retrievals, one right within the other, the one that tells less. */
  #repeated(): Set<string> {
    const repeated = new Set<string>();
    for (const facts of this.#steps.values()) {
      if (facts.kind === 'note') continue;
      const above = this.#sameKindAbove(facts);
      if (above === undefined) continue;
      if (facts.kind === 'tool' && above.tool?.name !== facts.tool?.name) continue;
      const inner = weight(this.#withLogs(facts));
      const outer = weight(this.#withLogs(above));
      // The inner one is the call itself, unless only the wrapper knows what was said.
      repeated.add(outer > inner || facts.kind === 'retrieval' || facts.kind === 'tool' ? facts.id : above.id);
    }
    return repeated;
  }

  #sameKindAbove(facts: Facts): Facts | undefined {
    for (let at = facts.parent, left = 20; at !== null && left > 0; left--) {
      const above = this.#above.get(at);
      if (above === undefined) return undefined;
      if (above.kind === facts.kind) return this.#steps.get(at);
      // An agent or a tool between them makes them two calls.
      if (above.kind === 'agent' || above.kind === 'tool' || above.kind === 'llm') return undefined;
      at = above.parent;
    }
    return undefined;
  }
}

function weight(facts: Facts): number {
  const known = (value: unknown): number => (value === undefined || value === null ? 0 : 1);
  return (
    known(facts.output) * 4 +
    known(facts.input) * 2 +
    known(facts.tool?.result) * 2 +
    known(facts.tool?.arguments) +
    known(facts.usage)
  );
}

/** What is read from top to bottom. `turns` as the server tells them, in their order; steps of a run without turns are one turn without a question. */
export function conversation(talk: Talk, turns: readonly Turn[]): Conversation {
  const starts = turns.map((turn) => milliseconds(turn.startedAt) ?? 0);
  const parts: { facts: Facts; agent: string | null }[][] = turns.map(() => []);
  const first: { facts: Facts; agent: string | null }[] = [];
  const all = talk.steps();
  for (const step of all) {
    let at = starts.length - 1;
    // The start of a turn is told to the microsecond, that of a step too, but not by the same rounding.
    while (at > 0 && (starts[at] ?? 0) > step.facts.start + 0.001) at -= 1;
    (parts[at] ?? first).push(step);
  }
  const seen = new Set<string>();
  const ran = joinCalls(all.map((step) => step.facts));
  const shown = turns.map((turn, at) => turnOf(turn, at, parts[at] ?? [], seen, ran));
  if (first.length > 0 && turns.length === 0) shown.push(turnOf(null, 0, first, seen, ran));
  return { turns: shown, withoutWords: talk.leftOut + all.filter((step) => step.facts.wordless).length };
}

interface Joined {
  /** Of a call that a model asked for, by its object: the step that ran it. */
  stepOf: Map<Call, Facts>;
  /** Of a step: the call that asked for it. */
  callOf: Map<string, Call>;
  /** What a model was told of a call, by the call's id. */
  resultOf: Map<string, Message>;
  /** The ids of all calls that were asked for: their results stand beside them. */
  asked: Set<string>;
  output: Map<string, Message[]>;
  input: Map<string, Message[]>;
}

/** Who asked for what: by the id of the call, else by its name, in order. */
function joinCalls(steps: readonly Facts[]): Joined {
  const joined: Joined = {
    stepOf: new Map(),
    callOf: new Map(),
    resultOf: new Map(),
    asked: new Set(),
    output: new Map(),
    input: new Map(),
  };
  const byId = new Map<string, Facts>();
  // Steps that name no call, in the order in which they began, and where the next may stand: calls are looked at in that order too.
  const byName = new Map<string, { list: Facts[]; at: number }>();
  for (const facts of steps) {
    if (facts.kind === 'tool') {
      const id = facts.tool?.call_id;
      if (id != null) byId.set(id, facts);
      const name = facts.tool?.name ?? facts.name;
      if (id == null) {
        const same = byName.get(name);
        if (same === undefined) byName.set(name, { list: [facts], at: 0 });
        else same.list.push(facts);
      }
    } else if (facts.kind === 'llm') {
      const input = messages(facts.input, 'user');
      joined.input.set(facts.id, input);
      joined.output.set(facts.id, messages(facts.output, 'assistant'));
      for (const one of input) {
        if (one.callId !== null && !joined.resultOf.has(one.callId)) joined.resultOf.set(one.callId, one);
      }
    }
  }
  const pair = (call: Call, step: Facts): void => {
    joined.stepOf.set(call, step);
    joined.callOf.set(step.id, call);
  };
  const calls = (facts: Facts): Call[] => (joined.output.get(facts.id) ?? []).flatMap((one) => [...one.calls]);
  for (const facts of steps) {
    for (const call of calls(facts)) {
      if (call.id !== null) joined.asked.add(call.id);
      const step = call.id === null ? undefined : byId.get(call.id);
      if (step !== undefined && !joined.callOf.has(step.id)) pair(call, step);
    }
  }
  for (const facts of steps) {
    for (const call of calls(facts)) {
      if (joined.stepOf.has(call)) continue;
      const same = byName.get(call.name);
      if (same === undefined) continue;
      while ((same.list[same.at]?.start ?? Infinity) < facts.start) same.at += 1;
      const step = same.list[same.at];
      same.at += 1;
      if (step !== undefined) pair(call, step);
    }
  }
  // A hand-off's step has a name of its own: the agent that is handed to stands in both.
  const handoffs = steps.filter((one) => one.kind === 'tool' && one.tool?.target != null && !joined.callOf.has(one.id));
  for (const facts of handoffs.length === 0 ? [] : steps) {
    for (const call of calls(facts)) {
      if (joined.stepOf.has(call)) continue;
      const named = squeezed(call.name);
      const at = handoffs.findIndex(
        (one) => one.start >= facts.start && named.endsWith(squeezed(one.tool?.target ?? '')),
      );
      const [step] = at < 0 ? [] : handoffs.splice(at, 1);
      if (step !== undefined) pair(call, step);
    }
  }
  return joined;
}

function squeezed(name: string): string {
  return name.toLowerCase().replace(/[^\p{L}\p{N}]/gu, '');
}

function turnOf(
  turn: Turn | null,
  at: number,
  parts: readonly { facts: Facts; agent: string | null }[],
  seen: Set<string>,
  joined: Joined,
): ShownTurn {
  const groups: Group[] = [];
  const asked = turn?.userText ?? '';
  if (asked !== '') seen.add(sameKey({ role: 'user', text: asked, value: undefined, calls: [], callId: null }));
  let answered = turn?.agentText ?? '';
  const total = { input: 0, output: 0, cost: null as number | null, end: null as number | null };
  for (const { facts, agent } of parts) {
    const step = stepOf(facts, seen, joined);
    if (step === null) continue;
    if (step.kind === 'llm') {
      total.input += step.inputTokens ?? 0;
      total.output += step.outputTokens ?? 0;
      if (step.cost !== null) total.cost = (total.cost ?? 0) + step.cost;
    }
    const says = step.kind === 'llm' ? step.answer : step.kind === 'note' ? step.said : [];
    if (says.some((one) => one.text.trim() === answered.trim())) answered = '';
    if (facts.end !== null) total.end = Math.max(total.end ?? 0, facts.end);
    const last = groups[groups.length - 1];
    if (last !== undefined && last.agent === agent) last.steps.push(step);
    else groups.push({ id: step.id, agent, steps: [step] });
  }
  const start = turn === null ? (parts[0]?.facts.start ?? null) : milliseconds(turn.startedAt);
  return {
    id: turn === null ? 'all' : `${String(at)}:${turn.invocationId}`,
    number: at + 1,
    start,
    asked,
    answered,
    groups,
    inputTokens: total.input,
    outputTokens: total.output,
    cost: total.cost,
    durationMs: start === null || total.end === null ? null : Math.max(0, total.end - start),
  };
}

function stepOf(facts: Facts, seen: Set<string>, joined: Joined): Step | null {
  const base: Base = {
    id: facts.id,
    seq: facts.lastSeq,
    name: facts.name,
    start: facts.start,
    durationMs: facts.durationMs ?? (facts.end === null ? null : Math.max(0, facts.end - facts.start)),
    state: facts.failed ? 'failed' : facts.end === null ? 'open' : 'ok',
    error: facts.error,
    wordless: facts.wordless,
  };
  switch (facts.kind) {
    case 'llm': {
      const input = joined.input.get(facts.id) ?? [];
      const answer = joined.output.get(facts.id) ?? [];
      const added = input.filter((one) => isNew(one, seen, joined));
      const calls = answer
        .flatMap((one) => [...one.calls])
        .map((call): AskedCall => {
          const ranAs = joined.stepOf.get(call)?.id ?? null;
          const result = ranAs === null && call.id !== null ? joined.resultOf.get(call.id) : undefined;
          return { ...call, ranAs, result: result ?? null };
        });
      const usage = facts.usage;
      return {
        ...base,
        kind: 'llm',
        model: facts.model,
        inputTokens: usage?.input_tokens ?? null,
        outputTokens: usage?.output_tokens ?? null,
        cachedTokens: usage?.cached_tokens ?? 0,
        reasoningTokens: usage?.reasoning_tokens ?? 0,
        cost: facts.cost,
        firstTokenMs: facts.firstTokenMs,
        finish: facts.finish,
        thinking: facts.thinking,
        added,
        folded: Math.max(facts.sent, input.length) - added.length,
        answer: answer.filter((one) => one.text !== '' || one.value !== undefined),
        calls,
      };
    }
    case 'tool': {
      const call = joined.callOf.get(facts.id);
      const told = call?.id == null ? undefined : joined.resultOf.get(call.id);
      const result = facts.tool?.result !== undefined ? facts.tool.result : told && (told.value ?? told.text);
      // Where messages name no call, the words tell that this is the result.
      if (typeof result === 'string') {
        for (const role of ['tool', 'function'])
          seen.add(sameKey({ role, text: result, value: undefined, calls: [], callId: null }));
      }
      return {
        ...base,
        kind: 'tool',
        tool: facts.tool?.name ?? facts.name,
        toolKind: facts.tool?.kind ?? 'tool',
        target: facts.tool?.target ?? null,
        args: facts.tool?.arguments ?? call?.args ?? (facts.isNative ? undefined : (facts.input ?? undefined)),
        result,
      };
    }
    case 'retrieval':
      return {
        ...base,
        kind: 'retrieval',
        query: facts.retrieval?.query ?? (typeof facts.input === 'string' ? facts.input : null),
        chunks: chunks(facts.retrieval?.chunks),
        total: facts.retrieval?.chunks_total ?? null,
      };
    case 'note': {
      const said = messages(facts.output ?? facts.input, 'assistant');
      const fresh = said.filter((one) => isNew(one, seen, joined));
      const thought =
        facts.thinking === null
          ? []
          : [{ role: 'thinking', text: facts.thinking, value: undefined, calls: [], callId: null }];
      if (fresh.length === 0 && thought.length === 0 && facts.error === null) return null;
      return { ...base, kind: 'note', role: fresh[0]?.role ?? 'assistant', said: [...thought, ...fresh] };
    }
    default:
      return null;
  }
}

/** Whether a message stands nowhere above: neither as it is, nor as the result of a step. */
function isNew(one: Message, seen: Set<string>, joined: Joined): boolean {
  if (one.callId !== null && joined.asked.has(one.callId)) return false;
  const key = sameKey(one);
  if (seen.has(key)) return false;
  seen.add(key);
  return true;
}

/** The chunks of a retrieval, as far as they are told. */
export function chunks(told: readonly unknown[] | null | undefined): Chunk[] {
  return (told ?? []).map((one) => {
    if (!isRecord(one))
      return { id: null, document: null, score: null, text: typeof one === 'string' ? one : JSON.stringify(one) };
    const words = one.text ?? one.content;
    return {
      id: text(one.id),
      document: text(one.document),
      score: number(one.score),
      text: words === undefined || words === null ? '' : typeof words === 'string' ? words : JSON.stringify(words),
    };
  });
}

function isStart(event: StreamEvent): boolean {
  return event.event_type.endsWith('_started');
}

function named(newer: Facts, older: Facts): string {
  return /_(?:started|completed)$/u.test(newer.name) ? older.name : newer.name;
}

function toolOf(newer: Facts['tool'], older: Facts['tool']): Facts['tool'] {
  if (newer == null || older == null) return newer ?? older;
  return {
    ...older,
    ...newer,
    name: newer.name === '' ? older.name : newer.name,
    arguments: newer.arguments ?? older.arguments,
    result: newer.result !== undefined ? newer.result : older.result,
  };
}

function retrievalOf(newer: Facts['retrieval'], older: Facts['retrieval']): Facts['retrieval'] {
  if (newer == null || older == null) return newer ?? older;
  return { ...older, ...newer };
}

function finish(event: StreamEvent): string | null {
  const reasons = event.details?.finish_reasons;
  if (!Array.isArray(reasons) || reasons.length === 0) return null;
  return reasons.map(String).join(', ');
}

/** Words that came in parts. */
function joined(before: unknown, more: unknown): unknown {
  if (before === undefined || before === null) return more;
  if (more === undefined || more === null) return before;
  return Array.isArray(before) && Array.isArray(more) ? [...(before as unknown[]), ...(more as unknown[])] : more;
}

function text(value: unknown): string | null {
  if (typeof value === 'string' && value !== '') return value;
  return typeof value === 'number' ? String(value) : null;
}

function number(value: unknown): number | null {
  return typeof value === 'number' && Number.isFinite(value) ? value : null;
}

// Two runs, step by step: what is the same in both, where they part, and by how much they differ. No DOM, no clock.

import type { Kind, Run, Span, SpanState } from './run';

/** What a call was made with, as far as it is compared: which fields of which types, and the words themselves. */
export interface Asked {
  shape: string;
  /** Told as text, shortened by the server where it is long. */
  words: string;
}

/** One step of a run in the order in which runs are compared: callers before what they call. */
export interface Step {
  id: string;
  parent: string | null;
  depth: number;
  /** Who did what, with which tool, with arguments of which shape: equal ones are the same step. */
  key: string;
  /** The same without the arguments. */
  weak: string;
  label: string;
  agent: string | null;
  kind: Kind;
  model: string | null;
  state: SpanState;
  durationMs: number | null;
  tokens: number | null;
  cost: number | null;
  words: string;
  error: string | null;
}

/**
 * Two steps beside each other, or one that the other run does not have. `same`: equal keys; `changed`: the same call with arguments of another
 * shape; `pending`: a run that goes on has not come here yet.
 */
export type How = 'same' | 'changed' | 'only-a' | 'only-b' | 'pending-a' | 'pending-b';
export type Difference = 'outcome' | 'arguments' | 'model';

export interface Row {
  /** Index into the steps of each side. */
  a: number | null;
  b: number | null;
  how: How;
  /** What differs in steps that stand beside each other. */
  differs: readonly Difference[];
}

export interface Alignment {
  rows: readonly Row[];
  /** The runs differ so much that a part of them was only aligned step after step, not as well as could be. */
  coarse: boolean;
  /** The first row where the runs part: another step, other arguments, another outcome. `null`: they do not. */
  divergence: number | null;
  same: number;
  /** Rows that are neither the same nor pending. */
  different: number;
}

const SHAPE_DEPTH = 6;
const SHAPE_FIELDS = 64;

/** The shape of JSON: `{city:text,days:number}`. Order of fields, lengths of lists and values do not count. Text that is JSON is read. */
export function shapeOf(value: unknown, depth = 0): string {
  const read = depth === 0 ? parsed(value) : value;
  if (read === undefined || read === null) return '';
  if (Array.isArray(read)) {
    if (depth >= SHAPE_DEPTH) return '[]';
    const kinds = new Set(read.slice(0, SHAPE_FIELDS).map((item) => shapeOf(item, depth + 1)));
    return `[${[...kinds].sort().join('|')}]`;
  }
  if (typeof read === 'object') {
    if (depth >= SHAPE_DEPTH) return '{}';
    const fields = Object.entries(read as Record<string, unknown>).slice(0, SHAPE_FIELDS);
    return `{${fields
      .map(([name, of]) => `${name}:${shapeOf(of, depth + 1)}`)
      .sort()
      .join(',')}}`;
  }
  return typeof read === 'string' ? 'text' : typeof read;
}

function parsed(value: unknown): unknown {
  if (typeof value !== 'string' || !/^\s*[[{]/.test(value)) return value;
  try {
    return JSON.parse(value) as unknown;
  } catch {
    return value;
  }
}

/** What an event of a stream says that a call was made with; `null` when it says nothing of that. */
export function askedOf(event: Record<string, unknown>): { span: string; asked: Asked } | null {
  const span = event['span_id'];
  if (typeof span !== 'string') return null;
  const tool = event['tool'];
  const retrieval = event['retrieval'];
  let value: unknown;
  if (typeof tool === 'object' && tool !== null) value = (tool as Record<string, unknown>)['arguments'];
  else if (typeof retrieval === 'object' && retrieval !== null) value = (retrieval as Record<string, unknown>)['query'];
  if (value === undefined || value === null) return null;
  return { span, asked: { shape: shapeOf(value), words: words(value) } };
}

const WORDS = 400;

function words(value: unknown): string {
  const read = parsed(value);
  const text = typeof read === 'string' ? read : (JSON.stringify(sorted(read, 0)) ?? '');
  return text.slice(0, WORDS);
}

function sorted(value: unknown, depth: number): unknown {
  if (typeof value !== 'object' || value === null || depth > SHAPE_DEPTH) return value;
  if (Array.isArray(value)) return value.map((item) => sorted(item, depth + 1));
  const fields = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(fields.map(([name, of]) => [name, sorted(of, depth + 1)]));
}

/**
 * The steps of a run: callers before what they call, in order of start. Steps that ran side by side have no order of their own and stand by
 * their keys, so that who happened to be first does not count. Whatever is in no tree, or in a circle, is left out.
 */
export function stepsOf(run: Run, asked: ReadonlyMap<string, Asked>, now: number): Step[] {
  const steps: Step[] = [];
  const seen = new Set<string>();
  const stack: { id: string; depth: number }[] = [];
  const push = (parent: string | null, depth: number): void => {
    const spans: Span[] = [];
    for (const id of run.children.get(parent) ?? []) {
      const span = run.spans.get(id);
      if (span !== undefined && !seen.has(id)) spans.push(span);
    }
    const ordered = inOrder(spans, asked, now);
    for (let at = ordered.length - 1; at >= 0; at -= 1) {
      const span = ordered[at];
      if (span !== undefined) stack.push({ id: span.id, depth });
    }
  };
  push(null, 0);
  for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
    const span = run.spans.get(next.id);
    if (span === undefined || seen.has(next.id)) continue;
    seen.add(next.id);
    steps.push(stepOf(span, asked.get(span.id), next.depth));
    push(next.id, next.depth + 1);
  }
  return steps;
}

function inOrder(spans: readonly Span[], asked: ReadonlyMap<string, Asked>, now: number): Span[] {
  const byStart = [...spans].sort((a, b) => a.start - b.start || a.firstSeq - b.firstSeq);
  const ordered: Span[] = [];
  let group: Span[] = [];
  let end = Number.NEGATIVE_INFINITY;
  const close = (): void => {
    if (group.length > 1) {
      const keyed = group.map((span) => ({ span, key: keysOf(span, asked.get(span.id)).key }));
      keyed.sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0));
      ordered.push(...keyed.map(({ span }) => span));
    } else ordered.push(...group);
    group = [];
  };
  for (const span of byStart) {
    if (span.start >= end) close();
    group.push(span);
    end = Math.max(group.length === 1 ? Number.NEGATIVE_INFINITY : end, span.end ?? now);
  }
  close();
  return ordered;
}

/** Ids and counts in names make no other step of it. */
function plain(name: string): string {
  return name.replace(/[0-9a-f]{8,}(-[0-9a-f]{4,})*|\d{4,}/gi, '#');
}

function keysOf(span: Span, asked: Asked | undefined): { key: string; weak: string } {
  // The name of a model call holds the model, which may differ and is told by itself.
  const what = span.kind === 'llm' ? '' : plain(span.tool ?? span.name);
  const weak = JSON.stringify([span.agent === null ? '' : plain(span.agent), span.kind, what]);
  return { weak, key: `${weak}${asked?.shape ?? ''}` };
}

function stepOf(span: Span, asked: Asked | undefined, depth: number): Step {
  const tokens =
    span.inputTokens === null && span.outputTokens === null ? null : (span.inputTokens ?? 0) + (span.outputTokens ?? 0);
  return {
    id: span.id,
    parent: span.parent,
    depth,
    ...keysOf(span, asked),
    label: span.tool ?? span.name,
    agent: span.agent,
    kind: span.kind,
    model: span.model,
    state: span.state,
    durationMs: span.end === null ? null : Math.max(0, span.end - span.start),
    tokens,
    cost: span.cost,
    words: asked?.words ?? '',
    error: span.error,
  };
}

/** Comparisons of two steps that one alignment may make. */
export const WORK = 2_000_000;

/**
 * Aligns the steps of two runs: as many as possible beside their equals, in order (Myers' shortest edit script, halved again and again, so memory is
 * linear). What is left between them is paired where only the arguments differ. Beyond `work` comparisons it goes on with the next equal step
 * only, and says `coarse`. `aRuns`, `bRuns`: the run goes on, so what it does not have yet is no difference.
 */
export function align(
  a: readonly Step[],
  b: readonly Step[],
  { aRuns = false, bRuns = false, work = WORK }: { aRuns?: boolean; bRuns?: boolean; work?: number } = {},
): Alignment {
  const budget = { left: work, coarse: false };
  const numbers = new Map<string, number>();
  const number = (key: string): number => {
    const known = numbers.get(key) ?? numbers.size;
    numbers.set(key, known);
    return known;
  };
  const keys = (steps: readonly Step[], of: 'key' | 'weak'): Int32Array =>
    Int32Array.from(steps, (step) => number(step[of]));
  const pairs = matched(keys(a, 'key'), keys(b, 'key'), whole(a.length, b.length), budget);
  const weakA = keys(a, 'weak');
  const weakB = keys(b, 'weak');

  const rows: Row[] = [];
  const only = (aFrom: number, aTo: number, bFrom: number, bTo: number): void => {
    for (let at = aFrom; at < aTo; at += 1) rows.push({ a: at, b: null, how: 'only-a', differs: [] });
    for (let at = bFrom; at < bTo; at += 1) rows.push({ a: null, b: at, how: 'only-b', differs: [] });
  };
  const between = (box: Box): void => {
    let { aFrom, bFrom } = box;
    for (const [x, y] of matched(weakA, weakB, box, budget)) {
      only(aFrom, x, bFrom, y);
      // Arguments that nobody recorded are not other ones.
      const isTold = a[x]?.words !== '' && b[y]?.words !== '';
      rows.push(pair(a, b, x, y, isTold ? 'changed' : 'same'));
      aFrom = x + 1;
      bFrom = y + 1;
    }
    only(aFrom, box.aTo, bFrom, box.bTo);
  };
  let aFrom = 0;
  let bFrom = 0;
  for (const [x, y] of pairs) {
    between({ aFrom, aTo: x, bFrom, bTo: y });
    rows.push(pair(a, b, x, y, 'same'));
    aFrom = x + 1;
    bFrom = y + 1;
  }
  between({ aFrom, aTo: a.length, bFrom, bTo: b.length });
  if (bRuns) wait(rows, a, b, 'b');
  if (aRuns) wait(rows, a, b, 'a');

  const parts = (row: Row): boolean =>
    row.how === 'changed' || row.how === 'only-a' || row.how === 'only-b' || row.differs.includes('outcome');
  const divergence = rows.findIndex(parts);
  return {
    rows,
    coarse: budget.coarse,
    divergence: divergence < 0 ? null : divergence,
    same: rows.filter((row) => row.how === 'same' && row.differs.length === 0).length,
    different: rows.filter((row) => !row.how.startsWith('pending') && (row.how !== 'same' || row.differs.length > 0))
      .length,
  };
}

function pair(a: readonly Step[], b: readonly Step[], x: number, y: number, how: How): Row {
  const left = a[x];
  const right = b[y];
  const differs: Difference[] = [];
  if (left !== undefined && right !== undefined) {
    const failed = (state: SpanState): boolean => state === 'failed' || state === 'lost';
    const open = (state: SpanState): boolean => state === 'open' || state === 'stalled';
    if (failed(left.state) !== failed(right.state) && !open(left.state) && !open(right.state)) differs.push('outcome');
    if (left.words !== right.words && left.words !== '' && right.words !== '') differs.push('arguments');
    if (left.model !== right.model) differs.push('model');
  }
  return { a: x, b: y, how, differs };
}

/**
 * Steps that only the other run has are still to come in a run that goes on, when what they are in is open there (or to come, too) and nothing of
 * it was done after them.
 */
function wait(rows: Row[], a: readonly Step[], b: readonly Step[], side: 'a' | 'b'): void {
  const other = side === 'a' ? 'b' : 'a';
  const [own, others] = side === 'a' ? [a, b] : [b, a];
  // Of each step here that holds others: the last row that tells of something in it.
  const lastIn = new Map<string | null, number>();
  const partner = new Map<string, Step>();
  rows.forEach((row, at) => {
    const here = row[side] === null ? undefined : own[row[side]];
    const there = row[other] === null ? undefined : others[row[other]];
    if (here !== undefined) lastIn.set(here.depth === 0 ? null : here.parent, at);
    if (here !== undefined && there !== undefined) partner.set(there.id, here);
  });
  const roots = new Set(others.filter((step) => step.depth === 0).map((step) => step.id));
  const toCome = new Set<string>();
  rows.forEach((row, at) => {
    if (row.how !== (other === 'a' ? 'only-a' : 'only-b')) return;
    const step = row[other] === null ? undefined : others[row[other]];
    if (step === undefined) return;
    const above = step.parent === null ? undefined : partner.get(step.parent);
    const isOpen = above !== undefined && (above.state === 'open' || above.state === 'stalled');
    const holder = above === undefined ? null : above.id;
    const isRoot = roots.has(step.id);
    const awaited =
      isRoot || isOpen ? at > (lastIn.get(holder) ?? -1) : step.parent !== null && toCome.has(step.parent);
    if (!awaited) return;
    toCome.add(step.id);
    rows[at] = { ...row, how: side === 'a' ? 'pending-a' : 'pending-b' };
  });
}

interface Box {
  aFrom: number;
  aTo: number;
  bFrom: number;
  bTo: number;
}

function whole(aTo: number, bTo: number): Box {
  return { aFrom: 0, aTo, bFrom: 0, bTo };
}

/** Pairs of equal keys, rising on both sides. */
function matched(
  a: Int32Array,
  b: Int32Array,
  within: Box,
  budget: { left: number; coarse: boolean },
): [number, number][] {
  const pairs: [number, number][] = [];
  const size = within.aTo - within.aFrom + (within.bTo - within.bFrom) + 3;
  const forward = new Int32Array(size);
  const backward = new Int32Array(size);
  const boxes: Box[] = [within];
  // The end of a box that is to be told after what is before it.
  const ends: { at: number; pairs: [number, number][] }[] = [];
  for (let box = boxes.pop(); box !== undefined; box = boxes.pop()) {
    let { aFrom, aTo, bFrom, bTo } = box;
    while (aFrom < aTo && bFrom < bTo && a[aFrom] === b[bFrom]) pairs.push([aFrom++, bFrom++]);
    const tail: [number, number][] = [];
    while (aFrom < aTo && bFrom < bTo && a[aTo - 1] === b[bTo - 1]) tail.push([--aTo, --bTo]);
    tail.reverse();
    if (tail.length > 0) ends.push({ at: boxes.length, pairs: tail });
    if (aFrom < aTo && bFrom < bTo) {
      const inner = { aFrom, aTo, bFrom, bTo };
      const [x, y] = middle(a, b, inner, forward, backward, budget) ?? [aFrom, bFrom];
      const isSplit = (x > aFrom || y > bFrom) && (x < aTo || y < bTo);
      if (isSplit) {
        boxes.push({ ...inner, aFrom: x, bFrom: y }, { ...inner, aTo: x, bTo: y });
        continue;
      }
      greedy(a, b, inner, pairs);
      budget.coarse = true;
    }
    for (let end = ends.at(-1); end !== undefined && end.at === boxes.length; end = ends.at(-1)) {
      pairs.push(...end.pairs);
      ends.pop();
    }
  }
  return pairs;
}

/** A point of the shortest edit script in the middle of a box; `null` when the budget is used up. */
function middle(
  a: Int32Array,
  b: Int32Array,
  { aFrom, aTo, bFrom, bTo }: Box,
  forward: Int32Array,
  backward: Int32Array,
  budget: { left: number },
): [number, number] | null {
  const n = aTo - aFrom;
  const m = bTo - bFrom;
  const delta = n - m;
  const isOdd = (delta & 1) !== 0;
  const most = Math.ceil((n + m) / 2);
  const zero = most + 1;
  const reached = (of: Int32Array, diagonal: number): number => of[zero + diagonal] ?? 0;
  forward[zero + 1] = 0;
  backward[zero + 1] = 0;
  for (let d = 0; d <= most; d += 1) {
    const low = -(d - 2 * Math.max(0, d - m));
    const high = d - 2 * Math.max(0, d - n);
    for (let k = low; k <= high; k += 2) {
      let x =
        k === -d || (k !== d && reached(forward, k - 1) < reached(forward, k + 1))
          ? reached(forward, k + 1)
          : reached(forward, k - 1) + 1;
      let y = x - k;
      while (x < n && y < m && a[aFrom + x] === b[bFrom + y]) {
        x += 1;
        y += 1;
        budget.left -= 1;
      }
      forward[zero + k] = x;
      budget.left -= 1;
      const c = delta - k;
      if (isOdd && c >= -(d - 1) && c <= d - 1 && x + reached(backward, c) >= n) return [aFrom + x, bFrom + y];
    }
    for (let k = low; k <= high; k += 2) {
      let x =
        k === -d || (k !== d && reached(backward, k - 1) < reached(backward, k + 1))
          ? reached(backward, k + 1)
          : reached(backward, k - 1) + 1;
      let y = x - k;
      while (x < n && y < m && a[aTo - 1 - x] === b[bTo - 1 - y]) {
        x += 1;
        y += 1;
        budget.left -= 1;
      }
      backward[zero + k] = x;
      budget.left -= 1;
      const c = delta - k;
      if (!isOdd && c >= -d && c <= d && x + reached(forward, c) >= n) return [aTo - x, bTo - y];
    }
    if (budget.left < 0) return null;
  }
  return null;
}

/** How far the next equal step may be, where runs are too different for more. */
const NEAR = 64;

function greedy(a: Int32Array, b: Int32Array, { aFrom, aTo, bFrom, bTo }: Box, pairs: [number, number][]): void {
  const places = new Map<number, number[]>();
  for (let at = bTo - 1; at >= bFrom; at -= 1) {
    const key = b[at] ?? -1;
    const known = places.get(key);
    if (known === undefined) places.set(key, [at]);
    else known.push(at);
  }
  let from = bFrom;
  for (let at = aFrom; at < aTo; at += 1) {
    const of = places.get(a[at] ?? -2);
    if (of === undefined) continue;
    while (of.length > 0 && (of.at(-1) ?? 0) < from) of.pop();
    const next = of.at(-1);
    if (next === undefined || next - from > NEAR) continue;
    pairs.push([at, next]);
    from = next + 1;
  }
}

/** Rows as they are shown: long stretches of equal ones as one line that opens. */
export type Shown = { row: number } | { fold: number; from: number; to: number };

/** Equal rows that stay beside one that differs. */
const CONTEXT = 2;

/** What is shown of the rows: all, or what differs with a little around it. `opened`: folds (by their first row) that somebody opened. */
export function shown(alignment: Alignment, onlyDifferences: boolean, opened: ReadonlySet<number>): Shown[] {
  const { rows } = alignment;
  if (!onlyDifferences) return rows.map((_, row) => ({ row }));
  const out: Shown[] = [];
  const isPlain = (row: Row | undefined): boolean => row?.how === 'same' && row.differs.length === 0;
  for (let from = 0; from < rows.length;) {
    let to = from;
    while (to < rows.length && isPlain(rows[to])) to += 1;
    if (to === from) {
      out.push({ row: from });
      from += 1;
      continue;
    }
    const head = from === 0 ? from : from + CONTEXT;
    const foot = to === rows.length ? to : to - CONTEXT;
    for (let at = from; at < to; at += 1) {
      if (foot - head > 1 && at === head && !opened.has(head)) {
        out.push({ fold: head, from: head, to: foot });
        at = foot - 1;
      } else out.push({ row: at });
    }
    from = to;
  }
  return out;
}

/** What the whole of a run is measured by; `null`: not known. */
export interface Measured {
  durationMs: number | null;
  cost: number | null;
  inputTokens: number | null;
  outputTokens: number | null;
  llmCalls: number | null;
  toolCalls: number | null;
  errors: number | null;
}

export interface Change {
  name: string;
  unit: 'ms' | 'usd' | 'count';
  a: number | null;
  b: number | null;
  delta: number | null;
  /** Of what is in `a`; `null` where that is nothing. */
  share: number | null;
  /** Less is better in all of them. */
  better: 'a' | 'b' | null;
}

export function changes(a: Measured, b: Measured): Change[] {
  const of = (name: string, unit: Change['unit'], field: keyof Measured): Change => {
    const [x, y] = [a[field], b[field]];
    const delta = x === null || y === null ? null : y - x;
    return {
      name,
      unit,
      a: x,
      b: y,
      delta,
      share: delta === null || x === null || x === 0 ? null : delta / x,
      better: delta === null || delta === 0 ? null : delta < 0 ? 'b' : 'a',
    };
  };
  return [
    of('Time', 'ms', 'durationMs'),
    of('Cost', 'usd', 'cost'),
    of('Tokens in', 'count', 'inputTokens'),
    of('Tokens out', 'count', 'outputTokens'),
    of('Model calls', 'count', 'llmCalls'),
    of('Tool calls', 'count', 'toolCalls'),
    of('Errors', 'count', 'errors'),
  ];
}

/** A text of a step that both sides are asked for. */
export interface Section {
  title: string;
  a: string;
  b: string;
}

/** What went in and what came out of a step, of both sides, as text that can be compared. An event is what `why` tells of a span. */
export function sections(a: Record<string, unknown> | null, b: Record<string, unknown> | null): Section[] {
  const left = textsOf(a);
  const right = textsOf(b);
  const titles = [...new Set([...left.keys(), ...right.keys()])];
  const order = [
    'Prompt',
    'Arguments',
    'Query',
    'Input',
    'Thinking',
    'Answer',
    'Result',
    'Chunks',
    'Output',
    'Error',
    'Parameters',
  ];
  titles.sort((x, y) => order.indexOf(x) - order.indexOf(y));
  return titles.map((title) => ({ title, a: left.get(title) ?? '', b: right.get(title) ?? '' }));
}

function textsOf(event: Record<string, unknown> | null): Map<string, string> {
  const texts = new Map<string, string>();
  if (event === null) return texts;
  const isModel = typeof event['model'] === 'string';
  const put = (title: string, value: unknown): void => {
    if (value === undefined || value === null) return;
    const text = told(value);
    if (text !== '') texts.set(title, text);
  };
  const object = (name: string): Record<string, unknown> => {
    const value = event[name];
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  };
  put(isModel ? 'Prompt' : 'Input', event['input']);
  put(isModel ? 'Answer' : 'Output', event['output']);
  put('Thinking', event['thinking']);
  put('Arguments', object('tool')['arguments']);
  put('Result', object('tool')['result']);
  put('Query', object('retrieval')['query']);
  put('Chunks', object('retrieval')['chunks']);
  put(
    'Error',
    [object('error')['type'], object('error')['message']]
      .filter((text) => typeof text === 'string' && text !== '')
      .join(': '),
  );
  put('Parameters', Object.keys(object('parameters')).length > 0 ? event['parameters'] : null);
  // A tool's input and output are its arguments and its result told again.
  if (texts.has('Arguments')) texts.delete('Input');
  if (texts.has('Result')) texts.delete('Output');
  return texts;
}

/** JSON as indented text, messages as what their speakers say. */
function told(value: unknown): string {
  const read = parsed(value);
  if (typeof read === 'string') return read;
  if (Array.isArray(read) && read.length > 0 && read.every(isMessage)) {
    return read
      .map((message) => {
        const { role, content, ...rest } = message;
        delete rest['tool_call_id'];
        const more = Object.keys(rest).length > 0 ? `\n${JSON.stringify(sorted(rest, 0), null, 2)}` : '';
        return `${role}: ${typeof content === 'string' ? content : content === null || content === undefined ? '' : JSON.stringify(content, null, 2)}${more}`;
      })
      .join('\n\n');
  }
  return JSON.stringify(sorted(read, 0), null, 2) ?? '';
}

function isMessage(value: unknown): value is Record<string, unknown> & { role: string } {
  return typeof value === 'object' && value !== null && typeof (value as Record<string, unknown>)['role'] === 'string';
}

/** Characters of a text that are compared; what is beyond is said to be. */
export const COMPARED = 40_000;

export function clipped(text: string): { text: string; left: number } {
  return { text: text.slice(0, COMPARED), left: Math.max(0, text.length - COMPARED) };
}

/** Pairs of equal texts of two lists, rising on both sides, as many as can be within `work` comparisons. */
export function pairs(a: readonly string[], b: readonly string[], work = WORK): [number, number][] {
  const numbers = new Map<string, number>();
  const numbered = (texts: readonly string[]): Int32Array =>
    Int32Array.from(texts, (text) => {
      const known = numbers.get(text) ?? numbers.size;
      numbers.set(text, known);
      return known;
    });
  return matched(numbered(a), numbered(b), whole(a.length, b.length), { left: work, coarse: false });
}

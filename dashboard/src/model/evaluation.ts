// Evaluations: what is asked for, how it goes, what came of it. No DOM, no fetch, no clock.

import type { components } from '../api/schema';
import { pairs } from './compare';

export type Metric = components['schemas']['Answer_Vec_MetricInfo']['data'][number];
export type MetricReport = components['schemas']['MetricReport'];
export type TraceReport = components['schemas']['TraceReport'];
export type MatchType = 'EXACT' | 'IN_ORDER' | 'ANY_ORDER';

/** What is evaluated with. */
export interface Choice {
  /** Metrics by their names, each with what its score must reach. */
  thresholds: ReadonlyMap<string, number>;
  matchType: MatchType;
  /** Empty: the server's own choice. */
  judgeModel: string;
  /** A turn that only one side has scores 0, or is left out. */
  turns: 'count' | 'truncate';
}

export interface Group {
  category: string;
  metrics: readonly Metric[];
}

/** The metrics by what they judge, as the server lists them; those that can never work come last. */
export function groups(metrics: readonly Metric[]): Group[] {
  const of = new Map<string, Metric[]>();
  for (const metric of [...metrics.filter((one) => one.working), ...metrics.filter((one) => !one.working)]) {
    const category = metric.working ? metric.category : 'not here';
    const group = of.get(category);
    if (group === undefined) of.set(category, [metric]);
    else group.push(metric);
  }
  return [...of].map(([category, list]) => ({ category, metrics: list }));
}

/** Why a metric cannot be asked for now; `null`: it can. */
export function obstacle(metric: Metric, hasEvalSet: boolean): string | null {
  if (!metric.working) return metric.requiresGCP ? 'needs Vertex AI, which is not called' : 'not done here';
  if (metric.requiresEvalSet && !hasEvalSet) return 'needs an eval set';
  return null;
}

/** What a metric needs, in a word or two. */
export function needs(metric: Metric): string[] {
  return [
    ...(metric.requiresEvalSet ? ['eval set'] : []),
    ...(metric.requiresLLM ? ['judge'] : []),
    ...(metric.requiresRubrics ? ['rubrics'] : []),
  ];
}

/** The metrics that are chosen at first: those that need nobody's key. */
export function firstChoice(metrics: readonly Metric[]): Choice {
  const usual = ['tool_trajectory_avg_score', 'response_match_score', 'error_free'];
  const thresholds = new Map(
    metrics.filter((metric) => usual.includes(metric.name)).map((metric) => [metric.name, 0.5]),
  );
  return { thresholds, matchType: 'EXACT', judgeModel: '', turns: 'count' };
}

/** The `config` of a request. Metrics go as evaluators of their own, because only those have thresholds of their own. */
export function configOf(
  choice: Choice,
  metrics: readonly Metric[],
  hasEvalSet: boolean,
): Record<string, unknown> | null {
  const asked = metrics.filter((metric) => choice.thresholds.has(metric.name) && obstacle(metric, hasEvalSet) === null);
  if (asked.length === 0) return null;
  const judge = choice.judgeModel.trim();
  return {
    customEvaluators: asked.map((metric) => ({
      type: 'builtin',
      name: metric.name,
      threshold: choice.thresholds.get(metric.name) ?? 0.5,
    })),
    trajectoryMatchType: choice.matchType,
    turns: choice.turns,
    ...(judge === '' ? {} : { judgeModel: judge }),
  };
}

/** A text of a threshold's field; `null`: none between 0 and 1. */
export function threshold(text: string): number | null {
  const value = Number(text.replace(',', '.'));
  return text.trim() !== '' && value >= 0 && value <= 1 ? value : null;
}

/** An evaluation as it goes. */
export interface Progress {
  phase: 'sent' | 'running' | 'done' | 'failed' | 'stopped';
  says: string;
  /** Of each trace what is known of it so far, in the order in which they are evaluated. */
  reports: ReadonlyMap<string, TraceReport>;
  /** Traces that are to be evaluated; `null`: not known yet. */
  of: number | null;
  /** What could not be read. */
  errors: readonly string[];
}

export const SENT: Progress = { phase: 'sent', says: 'Sending…', reports: new Map(), of: null, errors: [] };

/** Takes a frame of the stream. What cannot be read changes nothing. */
export function progressed(progress: Progress, event: string | undefined, data: string): Progress {
  let told: unknown;
  try {
    told = JSON.parse(data);
  } catch {
    return progress;
  }
  const message = field(told, 'message');
  const error = field(told, 'error');
  if (typeof error === 'string') return { ...progress, phase: 'failed', says: error };
  if (event === 'performance_metrics') return { ...progress, phase: 'running', of: (progress.of ?? 0) + 1 };
  if (typeof message === 'string') return { ...progress, phase: 'running', says: message };
  const partial = field(field(told, 'traceProgress'), 'partialResult');
  if (isReport(partial))
    return { ...progress, phase: 'running', reports: new Map(progress.reports).set(partial.traceId, partial) };
  if (field(told, 'done') !== true) return progress;
  const result = field(told, 'result');
  const reports = field(result, 'traceResults');
  const errors = field(result, 'errors');
  return {
    ...progress,
    phase: 'done',
    says: 'Done',
    reports: byTrace(Array.isArray(reports) ? reports.filter(isReport) : []),
    errors: Array.isArray(errors) ? errors.filter((one) => typeof one === 'string') : [],
  };
}

/** Files may tell of a trace twice: then the later ones are counted. */
function byTrace(reports: readonly TraceReport[]): Map<string, TraceReport> {
  const of = new Map<string, TraceReport>();
  const seen = new Map<string, number>();
  for (const report of reports) {
    const times = (seen.get(report.traceId) ?? 0) + 1;
    seen.set(report.traceId, times);
    of.set(times === 1 ? report.traceId : `${report.traceId} (${times})`, report);
  }
  return of;
}

function isReport(value: unknown): value is TraceReport {
  return typeof field(value, 'traceId') === 'string' && Array.isArray(field(value, 'metricResults'));
}

export interface Tally {
  passed: number;
  failed: number;
  errors: number;
  skipped: number;
}

/** What came of all metrics of all traces. An error is no failure: nobody knows the score. */
export function tally(reports: Iterable<Pick<TraceReport, 'metricResults'>>): Tally {
  const sum: Tally = { passed: 0, failed: 0, errors: 0, skipped: 0 };
  for (const report of reports) for (const metric of report.metricResults) sum[outcome(metric)] += 1;
  return sum;
}

export function outcome(metric: Pick<MetricReport, 'error' | 'evalStatus'>): keyof Tally {
  if (metric.error !== null) return 'errors';
  return metric.evalStatus === 'PASSED' ? 'passed' : metric.evalStatus === 'FAILED' ? 'failed' : 'skipped';
}

/** A call of a tool, as a turn tells it. */
export interface Call {
  name: string;
  args: string;
}

/** A turn of a run or of an eval case. */
export interface Turn {
  question: string;
  answer: string;
  calls: readonly Call[];
}

/** A turn with what was expected of it; `null`: only the other side has it. */
export interface TurnPair {
  number: number;
  expected: Turn | null;
  actual: Turn | null;
  /** Calls beside each other: equal ones, then those of one side only. */
  calls: readonly { expected: Call | null; actual: Call | null }[];
}

/** Turns as they are paired by the server: by position. */
export function paired(expected: readonly Turn[] | null, actual: readonly Turn[]): TurnPair[] {
  const length = Math.max(expected?.length ?? 0, actual.length);
  return Array.from({ length }, (_, at) => {
    const [wanted, had] = [expected?.[at] ?? null, actual[at] ?? null];
    return {
      number: at + 1,
      expected: wanted,
      actual: had,
      calls: beside(expected === null ? null : (wanted?.calls ?? []), had?.calls ?? []),
    };
  });
}

/** Calls of both sides beside each other, in order: as many equal ones as can be, then those of the same name. */
export function beside(expected: readonly Call[] | null, actual: readonly Call[]): TurnPair['calls'] {
  if (expected === null) return actual.map((call) => ({ expected: null, actual: call }));
  const rows: { expected: Call | null; actual: Call | null }[] = [];
  const key = (call: Call): string => `${call.name} ${call.args}`;
  const walk = (
    from: [number, number],
    to: [number, number],
    keyOf: (call: Call) => string,
    between: (from: [number, number], to: [number, number]) => void,
  ): void => {
    const found = pairs(expected.slice(from[0], to[0]).map(keyOf), actual.slice(from[1], to[1]).map(keyOf));
    let [x, y] = from;
    for (const [i, j] of found) {
      const [atX, atY] = [from[0] + i, from[1] + j];
      between([x, y], [atX, atY]);
      rows.push({ expected: expected[atX] ?? null, actual: actual[atY] ?? null });
      [x, y] = [atX + 1, atY + 1];
    }
    between([x, y], to);
  };
  const alone = (from: [number, number], to: [number, number]): void => {
    for (const call of expected.slice(from[0], to[0])) rows.push({ expected: call, actual: null });
    for (const call of actual.slice(from[1], to[1])) rows.push({ expected: null, actual: call });
  };
  walk([0, 0], [expected.length, actual.length], key, (from, to) => walk(from, to, (call) => call.name, alone));
  return rows;
}

export function isEqual(expected: Call | null, actual: Call | null): boolean {
  return expected !== null && actual !== null && expected.name === actual.name && expected.args === actual.args;
}

/** The turns of `/api/convert` or of an eval case, in either spelling. */
export function turnsOf(invocations: unknown): Turn[] {
  if (!Array.isArray(invocations)) return [];
  return invocations.map((turn: unknown) => {
    const data = either(turn, 'intermediate_data', 'intermediateData');
    const calls = either(data, 'tool_uses', 'toolUses');
    return {
      question: words(either(turn, 'user_content', 'userContent')),
      answer: words(either(turn, 'final_response', 'finalResponse')),
      calls: Array.isArray(calls) ? calls.map(callOf) : [],
    };
  });
}

function callOf(call: unknown): Call {
  const name = field(call, 'name');
  const args = field(call, 'args');
  return {
    name: typeof name === 'string' ? name : '?',
    args: args === undefined || args === null ? '{}' : JSON.stringify(sorted(args, 0)),
  };
}

function words(content: unknown): string {
  const parts = field(content, 'parts');
  if (!Array.isArray(parts)) return '';
  return parts
    .map((part: unknown) => field(part, 'text'))
    .filter((text) => typeof text === 'string')
    .join('');
}

/** As keys are compared: in any order. */
function sorted(value: unknown, depth: number): unknown {
  if (typeof value !== 'object' || value === null || depth > 32) return value;
  if (Array.isArray(value)) return value.map((item) => sorted(item, depth + 1));
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, of]) => [name, sorted(of, depth + 1)]),
  );
}

/** An eval set that runs are compared with. */
export interface EvalSet {
  id: string;
  cases: number;
  /** Its JSON text. */
  text: string;
  /** Where it came from, for who chose it. */
  from: string;
}

/** The case that a run is compared with: the only one, of several the first that begins with its question, else the first. */
export function caseFor(set: EvalSet | null, actual: readonly Turn[]): Turn[] | null {
  if (set === null) return null;
  let read: unknown;
  try {
    read = JSON.parse(set.text);
  } catch {
    return null;
  }
  const cases = either(read, 'eval_cases', 'evalCases');
  if (!Array.isArray(cases)) return null;
  const all = cases.map((one: unknown) => turnsOf(field(one, 'conversation')));
  const plain = (text: string | undefined): string => (text ?? '').trim().toLowerCase();
  const question = plain(actual[0]?.question);
  const same = all.length > 1 ? all.find((turns) => plain(turns[0]?.question) === question) : undefined;
  return same ?? all[0] ?? null;
}

/** What the server says of a file as an eval set. */
export interface Validation {
  valid: boolean;
  id: string | null;
  cases: number;
  errors: readonly string[];
}

export function validation(answer: unknown): Validation {
  const data = field(answer, 'data');
  const id = field(data, 'evalSetId');
  const cases = field(data, 'numCases');
  const errors = field(data, 'errors');
  return {
    valid: field(data, 'valid') === true,
    id: typeof id === 'string' ? id : null,
    cases: typeof cases === 'number' ? cases : 0,
    errors: Array.isArray(errors) ? errors.filter((one) => typeof one === 'string') : [],
  };
}

/** A result that is stored with a run. */
export interface Stored {
  metric: string;
  score: number | null;
  label: 'passed' | 'failed' | 'not_evaluated';
  explanation: string | null;
  evalSet: string | null;
  /** RFC 3339. */
  at: string;
}

/** Results among events of `gen_ai.evaluation.result`, the last word on each metric and eval set. */
export function storedOf(events: readonly unknown[]): Stored[] {
  const last = new Map<string, Stored>();
  for (const event of events) {
    const attributes = field(event, 'attributes');
    const of = (name: string): unknown => field(attributes, name);
    const metric = of('gen_ai.evaluation.name');
    if (typeof metric !== 'string') continue;
    const score = of('gen_ai.evaluation.score.value');
    const label = of('gen_ai.evaluation.score.label');
    const explanation = of('gen_ai.evaluation.explanation');
    const evalSet = of('tailspan.evaluation.eval_set');
    const at = field(event, 'timestamp');
    const stored: Stored = {
      metric,
      score: typeof score === 'number' ? score : null,
      label: label === 'passed' || label === 'failed' ? label : 'not_evaluated',
      explanation: typeof explanation === 'string' ? explanation : null,
      evalSet: typeof evalSet === 'string' ? evalSet : null,
      at: typeof at === 'string' ? at : '',
    };
    last.set(JSON.stringify([metric, stored.evalSet]), stored);
  }
  return [...last.values()];
}

/** A score as it is read: three places, no more than are there. */
export function scored(score: number | null): string {
  return score === null ? '–' : String(Math.round(score * 1000) / 1000);
}

function either(of: unknown, snake: string, camel: string): unknown {
  return field(of, snake) ?? field(of, camel);
}
function field(of: unknown, name: string): unknown {
  return typeof of === 'object' && of !== null ? (of as Record<string, unknown>)[name] : undefined;
}

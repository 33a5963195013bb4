/** What the analysis says of a run, in the order and the words of the page. */
import type { components } from '../api/schema';
import { milliseconds } from './event';
import type { Run } from './run';

export type Analysis = components['schemas']['Analysis'];

export interface Finding {
  /** Stable while the analysis is asked for again. */
  id: string;
  kind: string;
  title: string;
  severity: 'error' | 'warning' | 'info';
  message: string;
  recommendation: string;
  error: string | null;
  spans: SpanLink[];
  /** Steps that it rests on and that are not linked. */
  more: number;
}

export interface SpanLink {
  id: string;
  name: string;
}

export interface Share {
  key: keyof Analysis['time'];
  label: string;
  part: number;
}

export interface Spent {
  name: string | null;
  calls: number;
  input: number;
  output: number;
  cached: number;
  cost: number | null;
  unpriced: number;
  /** Of the largest in the table, for its bar: by cost, else by tokens. */
  part: number;
}

export interface Waiting {
  id: string;
  name: string;
  agent: string | null;
  since: number | null;
  estimated: boolean;
}

const TITLES: Readonly<Record<string, string>> = {
  root_cause_error: 'Root cause',
  unclosed_span: 'Never ended',
  bottleneck: 'Bottleneck',
  slower_than_usual: 'Slower than usual',
  loop: 'Loop',
  retry: 'Tried again',
  repeated_call: 'Same call twice',
  token_waste: 'Tokens sent again',
  slow_first_token: 'Slow first token',
  missed_parallelism: 'One after the other',
  clock_skew: 'Clocks differ',
};

/** Links to steps that one finding shows. */
const MOST_LINKS = 8;

export function findings(analysis: Analysis, run: Run): Finding[] {
  const times = new Map<string, number>();
  return analysis.findings.map((one) => {
    const first = `${one.class}:${one.spans[0] ?? ''}`;
    const time = times.get(first) ?? 0;
    times.set(first, time + 1);
    return {
      id: `${first}:${String(time)}`,
      kind: one.class,
      title: TITLES[one.class] ?? one.class.replace(/_/gu, ' '),
      severity: one.severity === 'error' || one.severity === 'warning' ? one.severity : 'info',
      message: one.message,
      recommendation: one.recommendation,
      error: one.error ?? null,
      spans: one.spans.slice(0, MOST_LINKS).map((id) => link(id, run)),
      more: Math.max(0, one.spans.length - MOST_LINKS),
    };
  });
}

/** How a step is called: as the run shows it, else as its producer did. */
export function link(id: string, run: Run, name?: string): SpanLink {
  return { id, name: run.spans.get(id)?.name ?? name ?? id };
}

/** Where the time went, the parts that there are, in a fixed order. */
export function shares(analysis: Analysis): Share[] {
  const labels: [Share['key'], string][] = [
    ['model', 'Models'],
    ['tool', 'Tools'],
    ['retrieval', 'Retrieval'],
    ['other', 'Other steps'],
    ['queue', 'Waiting within a step'],
    ['idle', 'Idle'],
  ];
  return labels
    .map(([key, label]) => ({ key, label, part: analysis.time[key] }))
    .filter((share) => share.part >= 0.000_5);
}

export function spentByAgent(analysis: Analysis): Spent[] {
  return spent(analysis.cost_by_agent.map((one) => ({ name: one.agent ?? null, of: one })));
}

export function spentByModel(analysis: Analysis): Spent[] {
  return spent(analysis.cost_by_model.map((one) => ({ name: one.model ?? null, of: one })));
}

function spent(
  rows: readonly { name: string | null; of: Omit<components['schemas']['AgentCost'], 'agent'> }[],
): Spent[] {
  const isPriced = rows.some(({ of }) => (of.cost_usd ?? 0) > 0);
  const size = (of: (typeof rows)[number]['of']): number =>
    isPriced ? (of.cost_usd ?? 0) : of.input_tokens + of.output_tokens;
  const most = Math.max(0, ...rows.map(({ of }) => size(of)));
  return rows.map(({ name, of }) => ({
    name,
    calls: of.llm_calls,
    input: of.input_tokens,
    output: of.output_tokens,
    cached: of.cached_tokens,
    cost: of.cost_usd ?? null,
    unpriced: of.unpriced_llm_calls,
    part: most === 0 ? 0 : size(of) / most,
  }));
}

/** What a run that goes on waits for. */
export function waiting(analysis: Analysis, run: Run): Waiting[] {
  return (analysis.waiting_on ?? []).map((one) => ({
    id: one.span_id,
    name: link(one.span_id, run, one.name).name,
    agent: one.agent ?? null,
    since: milliseconds(one.since),
    estimated: one.estimated ?? false,
  }));
}

/** When the analysis is worth asking for again: a change is waited for, a run of many events is asked about less often. */
export function pauseMs(events: number): number {
  return events < 1_000 ? 1_000 : events < 10_000 ? 3_000 : 10_000;
}

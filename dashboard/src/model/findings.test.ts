import { describe, expect, it } from 'vitest';
import { findings, pauseMs, shares, spentByAgent, spentByModel, waiting, type Analysis } from './findings';
import { runOf, span } from './testing';

const nothing: Analysis = {
  trace_id: 't',
  status: 'failed',
  as_of_seq: 1,
  total_events: 1,
  truncated: false,
  duration_ms: 10,
  findings: [],
  critical_path: [],
  critical_path_left_out: 0,
  parallel: [],
  steps: [],
  time: { model: 0.9, tool: 0.1, retrieval: 0, other: 0, queue: 0.0001, idle: 0 },
  parallelism: { achieved: 1, most: 1, missed_ms: 0 },
  cost_by_agent: [],
  cost_by_model: [],
  event_distribution: {},
  component_execution_times: {},
  bottlenecks: [],
  errors: [],
  errors_count: 0,
  recommendations: [],
};
const remark = (more: object): Analysis['findings'][number] => ({
  class: 'root_cause_error',
  severity: 'error',
  spans: [],
  components: [],
  numbers: {},
  message: 'm',
  recommendation: 'r',
  ...more,
});
const run = runOf([span('a', { name: 'planner' })]);

describe('findings', () => {
  it('lead to their steps, by the names of the run', () => {
    const [one] = findings({ ...nothing, findings: [remark({ spans: ['a', 'gone'], error: 'broken' })] }, run);
    expect(one).toMatchObject({
      title: 'Root cause',
      error: 'broken',
      spans: [
        { id: 'a', name: 'planner' },
        { id: 'gone', name: 'gone' },
      ],
      more: 0,
    });
  });

  it('have ids of their own, and classes that nobody knows have a name', () => {
    const list = findings(
      { ...nothing, findings: [remark({}), remark({}), remark({ class: 'brand_new', severity: 'dire' })] },
      run,
    );
    expect(new Set(list.map((one) => one.id)).size).toBe(3);
    expect([list[2]?.title, list[2]?.severity]).toEqual(['brand new', 'info']);
  });

  it('link to few of many steps', () => {
    const spans = Array.from({ length: 50 }, (_, at) => `s${String(at)}`);
    const [one] = findings({ ...nothing, findings: [remark({ spans })] }, run);
    expect([one?.spans.length, one?.more]).toEqual([8, 42]);
  });
});

it('time is told in the parts that there are', () => {
  expect(shares(nothing).map((share) => share.label)).toEqual(['Models', 'Tools']);
});

it('what was spent is compared by cost, else by tokens', () => {
  const row = { llm_calls: 1, input_tokens: 10, output_tokens: 10, cached_tokens: 0, unpriced_llm_calls: 0 };
  const priced = {
    ...nothing,
    cost_by_agent: [
      { ...row, agent: 'a', cost_usd: 0.4 },
      { ...row, cost_usd: 0.1 },
    ],
  };
  expect(spentByAgent(priced).map((one) => [one.name, one.part])).toEqual([
    ['a', 1],
    [null, 0.25],
  ]);
  const unpriced = {
    ...nothing,
    cost_by_model: [
      { ...row, model: 'm' },
      { ...row, input_tokens: 0, model: 'n' },
    ],
  };
  expect(spentByModel(unpriced).map((one) => [one.name, one.cost, one.part])).toEqual([
    ['m', null, 1],
    ['n', null, 0.5],
  ]);
});

it('a run waits for its open steps', () => {
  const waits = [
    {
      span_id: 'a',
      name: 'x',
      kind: 'agent' as const,
      since: '2026-01-01T00:00:00Z',
      open_ms: 1,
      silent_ms: 1,
      estimated: true,
    },
  ];
  expect(waiting({ ...nothing, waiting_on: waits }, run)).toEqual([
    { id: 'a', name: 'planner', agent: null, since: 1_767_225_600_000, estimated: true },
  ]);
  expect(waiting(nothing, run)).toEqual([]);
  expect(pauseMs(10)).toBeLessThan(pauseMs(50_000));
});

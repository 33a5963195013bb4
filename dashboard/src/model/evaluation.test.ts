import { describe, expect, test } from 'vitest';
import {
  beside,
  caseFor,
  configOf,
  firstChoice,
  groups,
  isEqual,
  obstacle,
  paired,
  progressed,
  SENT,
  storedOf,
  tally,
  threshold,
  turnsOf,
  validation,
  type Call,
  type Metric,
} from './evaluation';

const metric = (name: string, more: Partial<Metric> = {}): Metric => ({
  name,
  category: 'efficiency',
  requiresEvalSet: false,
  requiresLLM: false,
  requiresGCP: false,
  requiresRubrics: false,
  description: '',
  working: true,
  ...more,
});
const METRICS = [
  metric('error_free'),
  metric('tool_trajectory_avg_score', { category: 'trajectory', requiresEvalSet: true }),
  metric('cloudy', { working: false, requiresGCP: true }),
];

test('metrics are grouped, and say what stands in their way', () => {
  expect(groups(METRICS).map((group) => [group.category, group.metrics.length])).toEqual([
    ['efficiency', 1],
    ['trajectory', 1],
    ['not here', 1],
  ]);
  expect(METRICS.map((one) => obstacle(one, false))).toEqual([
    null,
    'needs an eval set',
    'needs Vertex AI, which is not called',
  ]);
  expect(obstacle(METRICS[1] as Metric, true)).toBeNull();
});

test('a request asks for what is chosen and can be done, each with its threshold', () => {
  const choice = {
    ...firstChoice(METRICS),
    thresholds: new Map([
      ['error_free', 1],
      ['tool_trajectory_avg_score', 0.8],
      ['cloudy', 0.5],
    ]),
  };
  expect(configOf(choice, METRICS, true)).toEqual({
    customEvaluators: [
      { type: 'builtin', name: 'error_free', threshold: 1 },
      { type: 'builtin', name: 'tool_trajectory_avg_score', threshold: 0.8 },
    ],
    trajectoryMatchType: 'EXACT',
    turns: 'count',
  });
  expect(configOf({ ...choice, judgeModel: ' gpt-4o ' }, METRICS, false)).toMatchObject({ judgeModel: 'gpt-4o' });
  expect(configOf({ ...choice, thresholds: new Map([['cloudy', 1]]) }, METRICS, true)).toBeNull();
  expect(['0', '0,5', '1', '1.1', '', 'x'].map(threshold)).toEqual([0, 0.5, 1, null, null, null]);
});

describe('progress', () => {
  const report = (traceId: string, evalStatus: string): object => ({
    traceId,
    numInvocations: 1,
    conversionWarnings: [],
    performanceMetrics: null,
    metricResults: [
      { metricName: 'm', score: 1, evalStatus, perInvocationScores: [], error: null, details: null, durationMs: 1 },
    ],
  });
  test('tells of each trace as it goes, and of all at the end', () => {
    let progress = SENT;
    for (const [event, data] of [
      ['performance_metrics', { traceId: 't' }],
      [undefined, { message: 'Running m...' }],
      [undefined, { traceProgress: { traceId: 't', partialResult: report('t', 'PASSED') } }],
    ] as const)
      progress = progressed(progress, event, JSON.stringify(data));
    expect(progress).toMatchObject({ phase: 'running', says: 'Running m...', of: 1 });
    expect(progress.reports.size).toBe(1);
    const result = { traceResults: [report('t', 'PASSED'), report('u', 'FAILED')], errors: ['x.json: line 1'] };
    progress = progressed(progress, undefined, JSON.stringify({ done: true, result }));
    expect(progress).toMatchObject({ phase: 'done', errors: ['x.json: line 1'] });
    expect(tally(progress.reports.values())).toEqual({ passed: 1, failed: 1, errors: 0, skipped: 0 });
  });
  test('an error ends it, nonsense does nothing', () => {
    expect(progressed(SENT, undefined, '{"error": "no metrics"}')).toMatchObject({
      phase: 'failed',
      says: 'no metrics',
    });
    expect(progressed(SENT, undefined, '{')).toBe(SENT);
    expect(progressed(SENT, undefined, '{"traceProgress": 5}')).toEqual(SENT);
  });
});

const call = (text: string): Call => ({ name: text.replace(/\d/, ''), args: text });
const calls = (text: string): Call[] => text.split(' ').filter(Boolean).map(call);

test('calls stand beside their equals, then beside those of the same name', () => {
  const told = (a: string, b: string): string =>
    beside(calls(a), calls(b))
      .map(
        (row) =>
          `${row.expected?.args ?? '-'}${isEqual(row.expected, row.actual) ? '=' : '|'}${row.actual?.args ?? '-'}`,
      )
      .join(' ');
  expect(told('a b c', 'a x c')).toBe('a=a b|- -|x c=c');
  expect(told('a b1', 'a b2')).toBe('a=a b1|b2');
  expect(told('', 'a')).toBe('-|a');
  expect(beside(null, calls('a'))).toEqual([{ expected: null, actual: call('a') }]);
});

test('turns are read in both spellings and paired by position', () => {
  const snake = [
    {
      user_content: { parts: [{ text: 'q' }] },
      final_response: { parts: [{ text: 'a' }, { text: 'b' }] },
      intermediate_data: { tool_uses: [{ name: 't', args: { y: 1, x: 2 } }] },
    },
  ];
  const camel = [
    {
      userContent: { parts: [{ text: 'q' }] },
      finalResponse: { parts: [{ text: 'ab' }] },
      intermediateData: { toolUses: [{ name: 't', args: { x: 2, y: 1 } }] },
    },
    {},
  ];
  const [expected, actual] = [turnsOf(snake), turnsOf(camel)];
  expect(expected[0]).toEqual(actual[0]);
  const turns = paired(expected, actual);
  expect(turns).toHaveLength(2);
  expect(turns[0]?.calls).toHaveLength(1);
  expect(turns[1]?.expected).toBeNull();
  expect(turnsOf('nonsense')).toEqual([]);
});

test('of several cases that of the question counts', () => {
  const turn = (text: string): object => ({ user_content: { parts: [{ text }] } });
  const text = JSON.stringify({ eval_cases: [{ conversation: [turn('one')] }, { conversation: [turn('Two ')] }] });
  const set = { id: 's', cases: 2, text, from: 'file' };
  expect(caseFor(set, turnsOf([turn('two')]))?.[0]?.question).toBe('Two ');
  expect(caseFor(set, turnsOf([turn('three')]))?.[0]?.question).toBe('one');
  expect(caseFor({ ...set, text: '{' }, [])).toBeNull();
  expect(caseFor(null, [])).toBeNull();
});

test('stored results: the last word on each metric', () => {
  const event = (name: string, score: number | null, label: string): object => ({
    timestamp: '2026-01-01T00:00:00Z',
    attributes: {
      'gen_ai.evaluation.name': name,
      'gen_ai.evaluation.score.value': score,
      'gen_ai.evaluation.score.label': label,
      'gen_ai.evaluation.explanation': 'why',
    },
  });
  expect(
    storedOf([event('m', 0, 'failed'), event('m', 1, 'passed'), event('n', null, 'not_evaluated'), {}, null]),
  ).toMatchObject([
    { metric: 'm', score: 1, label: 'passed' },
    { metric: 'n', score: null, label: 'not_evaluated', explanation: 'why' },
  ]);
});

test('what the server says of an eval set is read as it is found', () => {
  expect(validation({ data: { valid: true, evalSetId: 'x', numCases: 2, errors: [] } })).toEqual({
    valid: true,
    id: 'x',
    cases: 2,
    errors: [],
  });
  expect(validation({ data: { valid: false, errors: ['eval_cases: missing'] } })).toMatchObject({
    valid: false,
    errors: ['eval_cases: missing'],
  });
  expect(validation(null).valid).toBe(false);
});

import { describe, expect, it } from 'vitest';
import { detail, found } from './detail';
import type { StreamEvent } from './event';

const base: StreamEvent = {
  seq: 1,
  event_type: 'llm_call_completed',
  trace_id: 't',
  timestamp: '2026-01-01T00:00:00.000Z',
  agent_id: 'planner',
  convention: 'c',
};
const event = (more: Record<string, unknown>): StreamEvent => ({ ...base, ...more });

describe('a model call', () => {
  const shown = detail([
    event({
      kind: 'llm',
      model: 'gpt-4o',
      duration_ms: 812.5,
      usage: {
        input_tokens: 10,
        output_tokens: 5,
        total_tokens: 15,
        cached_tokens: 4,
        cache_write_tokens: 0,
        reasoning_tokens: 0,
      },
      parameters: { temperature: 0.1 },
      details: {
        finish_reasons: ['stop'],
        response_model: 'gpt-4o-2024-08-06',
        links: [{ trace_id: 'x', span_id: 'y' }, 3],
      },
      input: [
        { role: 'user', content: 'a' },
        { role: 'assistant', content: 'b' },
        { role: 'user', content: 'c' },
      ],
      output: [{ role: 'assistant', content: 'd' }],
      attributes: { b: 1, a: 'long' },
      resource: { 'service.name': 's' },
    }),
  ]);

  it('has its messages, the earlier ones counted', () => {
    expect(shown.sort).toBe('llm');
    expect(shown.sent.map((one) => one.text)).toEqual(['a', 'b', 'c']);
    expect(shown.earlier).toBe(2);
    expect(shown.answer[0]?.text).toBe('d');
    expect(shown.parameters).toEqual([['temperature', 0.1]]);
    expect(shown.links).toEqual([{ trace: 'x', span: 'y' }]);
  });

  it('has its facts', () => {
    expect(shown.facts.map((fact) => `${fact.label}=${fact.value}`)).toEqual([
      'Agent=planner',
      'Model=gpt-4o',
      'Answered by=gpt-4o-2024-08-06',
      'Finished=stop',
      'Duration=812.5',
      'Tokens in=10',
      'From cache=4',
      'Tokens out=5',
    ]);
  });

  it('has its attributes, which can be searched', () => {
    expect(shown.attributes.map((one) => `${one.of} ${one.key}`)).toEqual([
      'span a',
      'span b',
      'resource service.name',
    ]);
    expect(found(shown.attributes, 'LONG').map((one) => one.key)).toEqual(['a']);
    expect(found(shown.attributes, 'service').length).toBe(1);
    expect(found(shown.attributes, ' ').length).toBe(3);
  });
});

it('an error is told once, with its stack', () => {
  const exception = {
    name: 'exception',
    time: '2026-01-01T00:00:01.000Z',
    attributes: { 'exception.type': 'Oops', 'exception.message': 'broken', 'exception.stacktrace': 'at x' },
  };
  const shown = detail([
    event({
      kind: 'tool',
      error: { type: 'Oops', message: 'broken' },
      span_events: [exception, exception, { name: 'note', attributes: {} }, null],
    }),
  ]);
  expect(shown.errors).toEqual([{ type: 'Oops', message: 'broken', stack: 'at x', at: 1_767_225_601_000 }]);
  expect(shown.events.map((one) => one.name)).toEqual(['note', '']);
  expect(detail([event({ error: { type: 'A', message: '' } })]).errors).toEqual([
    { type: 'A', message: '', stack: null, at: null },
  ]);
});

it('a native step is told by its start and its end together', () => {
  const shown = detail([
    event({
      event_type: 'tool_call_started',
      tool: { name: 'calc', kind: 'tool', call_id: 'c', arguments: { x: 1 } },
      details: { a: 1 },
    }),
    event({
      event_type: 'tool_call_completed',
      tool: { name: '', kind: 'tool', call_id: 'c', result: null },
      details: { b: 2 },
    }),
  ]);
  expect(shown.tool).toEqual({ name: 'calc', args: { x: 1 }, result: null });
  expect(shown.attributes.map((one) => one.key)).toEqual(['a', 'b']);
});

it('a retrieval has its chunks', () => {
  const shown = detail([
    event({
      kind: 'retriever',
      retrieval: {
        query: 'q',
        top_k: 3,
        rerank: true,
        chunks_total: 7,
        chunks: [{ id: 1, score: 0.5, document: 'd', text: 'words' }, '5 of 7 chunks'],
      },
    }),
  ]);
  expect(shown.retrieval).toEqual({
    query: 'q',
    total: 7,
    facts: [
      { label: 'Asked for', value: '3', as: 'text' },
      { label: 'Reranked', value: 'yes', as: 'text' },
    ],
    chunks: [
      { id: '1', document: 'd', score: 0.5, text: 'words' },
      { id: null, document: null, score: null, text: '5 of 7 chunks' },
    ],
  });
});

it('strangers may send anything', () => {
  for (const odd of [null, 0, '', [], {}, 'x', [null], { attributes: 3 }])
    expect(() =>
      detail([
        event({
          input: odd,
          output: odd,
          span_events: odd,
          details: { links: odd, finish_reasons: odd },
          attributes: odd,
          resource: odd,
        }),
      ]),
    ).not.toThrow();
});

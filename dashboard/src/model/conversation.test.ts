import { describe, expect, it } from 'vitest';
import { conversation, Talk, type Conversation, type Turn } from './conversation';
import type { StreamEvent } from './event';

const at = (second: number): string => new Date(1_800_000_000_000 + second * 1_000).toISOString();

/** A span's event; `from` and `to` in seconds, without `to` it has not ended. */
function span(id: string, kind: string, from: number, to: number | null, more: Partial<StreamEvent> = {}): StreamEvent {
  return {
    seq: from + 1,
    event_type: to === null ? `${kind}_call_started` : `${kind}_call_completed`,
    trace_id: 't',
    timestamp: at(to ?? from),
    agent_id: '',
    convention: 'c',
    span_id: id,
    kind: kind as never,
    name: `${kind} ${id}`,
    status: to === null ? 'running' : 'ok',
    start_time: at(from),
    ...(to === null ? {} : { end_time: at(to), duration_ms: (to - from) * 1_000 }),
    ...more,
  };
}

function native(seq: number, type: string, more: Partial<StreamEvent> = {}): StreamEvent {
  return { seq, event_type: type, trace_id: 't', timestamp: at(seq), agent_id: 'a', convention: 'native', ...more };
}

const turn = (second: number, userText: string, agentText: string): Turn => ({
  invocationId: `i${String(second)}`,
  startedAt: at(second),
  userText,
  agentText,
});

const user = (content: string): object => ({ role: 'user', content });
const assistant = (content: string): object => ({ role: 'assistant', content });
const asks = (id: string, name: string, args: object): object => ({
  role: 'assistant',
  tool_calls: [{ id, name, arguments: args }],
});

function read(events: readonly StreamEvent[], turns: readonly Turn[]): Conversation {
  const talk = new Talk();
  for (const event of events) talk.apply(event);
  return conversation(talk, turns);
}

/** What stands on the page, a line a step. */
function lines(shown: Conversation): string[] {
  return shown.turns.flatMap((one) => [
    `# ${one.asked}`,
    ...one.groups.flatMap((group) => [
      `@ ${group.agent ?? '-'}`,
      ...group.steps.map((step) => {
        switch (step.kind) {
          case 'llm':
            return `llm ${step.id}: +[${step.added.map((m) => `${m.role}:${m.text}`).join('|')}] ~${String(step.folded)} -> ${step.answer.map((m) => m.text).join('|')}${step.calls.map((c) => `${c.name}=>${c.ranAs ?? (c.result?.text === undefined ? '?' : `"${c.result.text}"`)}`).join(',')} ${step.state}`;
          case 'tool':
            return `tool ${step.id} ${step.tool}(${JSON.stringify(step.args)}) = ${JSON.stringify(step.result)} ${step.state}`;
          case 'retrieval':
            return `found ${step.query ?? ''}: ${step.chunks.map((chunk) => chunk.text).join('|')}`;
          case 'note':
            return `note ${step.said.map((m) => `${m.role}:${m.text}`).join('|')}${step.error?.message ?? ''}`;
        }
      }),
    ]),
    ...(one.answered === '' ? [] : [`= ${one.answered}`]),
  ]);
}

const usual = [
  span('a', 'agent', 0, 9, { agent_name: 'planner' }),
  span('m1', 'llm', 1, 2, {
    parent_span_id: 'a',
    input: [{ role: 'system', content: 'be brief' }, user('roll')],
    output: [asks('c1', 'roll_die', { sides: 6 })],
    details: { input_messages: 2 },
  }),
  span('t1', 'tool', 3, 4, {
    parent_span_id: 'a',
    tool: { name: 'roll_die', call_id: 'c1', kind: 'tool', arguments: { sides: 6 }, result: '4' },
  }),
  span('m2', 'llm', 5, 6, {
    parent_span_id: 'a',
    input: [{ role: 'tool', content: '4', tool_call_id: 'c1' }],
    output: [assistant('It is 4.')],
    details: { input_messages: 4 },
  }),
];

describe('a turn', () => {
  it('is read from top to bottom, each word once', () => {
    const expected = [
      '# roll',
      '@ planner',
      'llm m1: +[system:be brief] ~1 -> roll_die=>t1 ok',
      'tool t1 roll_die({"sides":6}) = "4" ok',
      'llm m2: +[] ~4 -> It is 4. ok',
    ];
    expect(lines(read(usual, [turn(0, 'roll', 'It is 4.')]))).toEqual(expected);
    // In any order, any number of times.
    expect(lines(read([...usual, ...usual].reverse(), [turn(0, 'roll', 'It is 4.')]))).toEqual(expected);
  });

  it('begins where the server says that it does', () => {
    const more = span('m3', 'llm', 21, 22, {
      input: [user('again')],
      output: [assistant('5')],
      details: { input_messages: 9 },
    });
    const shown = read([...usual, more], [turn(0, 'roll', 'It is 4.'), turn(20, 'again', '5')]);
    expect(lines(shown).slice(5)).toEqual(['# again', '@ -', 'llm m3: +[] ~9 -> 5 ok']);
    expect(shown.turns.map((one) => one.durationMs)).toEqual([6_000, 2_000]);
  });

  it('shows the answer that no step gave', () => {
    expect(lines(read(usual.slice(0, 2), [turn(0, 'roll', 'done')])).at(-1)).toBe('= done');
  });

  it('shows what is said twice in two turns twice', () => {
    const shown = read(
      [
        span('m1', 'llm', 1, 2, { input: [user('yes')], output: [assistant('fine')] }),
        span('m2', 'llm', 11, 12, {
          input: [user('yes')],
          output: [assistant('fine')],
          details: { input_messages: 3 },
        }),
      ],
      [turn(0, 'yes', 'fine'), turn(10, 'yes', 'fine')],
    );
    expect(lines(shown)).toEqual([
      '# yes',
      '@ -',
      'llm m1: +[] ~1 -> fine ok',
      '# yes',
      '@ -',
      'llm m2: +[] ~3 -> fine ok',
    ]);
  });
});

describe('live', () => {
  it('shows what has not ended', () => {
    expect(lines(read([span('m1', 'llm', 1, null, { input: [user('hi')] })], [turn(0, 'hi', '')]))).toEqual([
      '# hi',
      '@ -',
      'llm m1: +[] ~1 ->  open',
    ]);
  });

  it('lets the end win, in whichever order they come', () => {
    const start = span('m1', 'llm', 1, null, { input: [user('hi')] });
    const end = span('m1', 'llm', 1, 3, { output: [assistant('ho')] });
    for (const events of [
      [start, end],
      [end, start],
    ])
      expect(lines(read(events, [turn(0, 'hi', 'ho')]))).toEqual(['# hi', '@ -', 'llm m1: +[] ~1 -> ho ok']);
  });
});

describe('dialects', () => {
  it('counts a call that two spans tell of once', () => {
    const shown = read(
      [
        span('outer', 'llm', 1, 4, { output: [assistant('x')] }),
        span('inner', 'llm', 2, 3, { parent_span_id: 'outer', input: [user('q')], output: [assistant('x')] }),
        span('mcp', 'tool', 5, 8, { tool: { name: 'search', kind: 'tool', result: 'r' } }),
        span('server', 'tool', 6, 7, { parent_span_id: 'mcp', tool: { name: 'search', kind: 'tool' } }),
      ],
      [],
    );
    expect(lines(shown)).toEqual([
      '# ',
      '@ -',
      'llm inner: +[user:q] ~0 -> x ok',
      'tool mcp search(undefined) = "r" ok',
    ]);
  });

  it('keeps the calls of a model span that holds agents', () => {
    const shown = read(
      [
        span('m1', 'llm', 1, 9, { output: [assistant('x')] }),
        span('a2', 'agent', 2, 8, { parent_span_id: 'm1', agent_name: 'helper' }),
        span('m2', 'llm', 3, 4, { parent_span_id: 'a2', output: [assistant('y')] }),
      ],
      [],
    );
    expect(lines(shown).filter((line) => line.startsWith('llm')).length).toBe(2);
  });

  it('finds words in log records', () => {
    const shown = read(
      [
        span('m1', 'llm', 1, 3),
        { ...native(5, 'gen_ai.user.message'), kind: 'log', span_id: 'm1', input: [user('hi')] },
        { ...native(6, 'message_generated'), kind: 'log', span_id: 'm1', output: [assistant('ho')] },
      ],
      [],
    );
    expect(lines(shown)).toEqual(['# ', '@ -', 'llm m1: +[user:hi] ~0 -> ho ok']);
  });

  it('joins native events by their call', () => {
    const shown = read(
      [
        native(1, 'llm_call_started', { input: 'a prompt', details: { call_id: 'l' }, model: 'm' }),
        native(3, 'llm_call_completed', { output: 'an answer', details: { call_id: 'l' } }),
        native(4, 'tool_call_started', { tool: { name: 'calc', call_id: 't', kind: 'tool', arguments: { x: 1 } } }),
        native(5, 'tool_call_completed', { tool: { name: '', call_id: 't', kind: 'tool', result: 0 } }),
        native(6, 'message_generated', { output: 'told' }),
        native(7, 'error_occurred', { error: { type: 'Oops', message: 'broken' } }),
      ],
      [],
    );
    expect(lines(shown)).toEqual([
      '# ',
      '@ a',
      'llm native:llm:l: +[user:a prompt] ~0 -> an answer ok',
      'tool native:tool:t calc({"x":1}) = 0 ok',
      'note assistant:told',
      'note broken',
    ]);
  });

  it('tells results that no step told, beside the call', () => {
    const shown = read(
      [
        span('m1', 'llm', 1, 2, { input: [user('q')], output: [asks('c', 'look', {})] }),
        span('m2', 'llm', 3, 4, {
          input: [{ role: 'tool', content: 'seen', tool_call_id: 'c' }],
          output: [assistant('a')],
        }),
      ],
      [turn(0, 'q', 'a')],
    );
    expect(lines(shown)[2]).toBe('llm m1: +[] ~1 -> look=>"seen" ok');
    expect(lines(shown)[3]).toBe('llm m2: +[] ~1 -> a ok');
  });
});

it('a hand-off is the call that asked for it', () => {
  const shown = read(
    [
      span('m1', 'llm', 1, 2, { input: [user('q')], output: [asks('c', 'transfer_to_stock_agent', {})] }),
      span('h', 'tool', 3, 4, { tool: { name: 'handoff to Stock Agent', kind: 'handoff', target: 'Stock Agent' } }),
    ],
    [turn(0, 'q', '')],
  );
  expect(lines(shown)[2]).toContain('transfer_to_stock_agent=>h');
});

describe('strangers', () => {
  it('may send anything', () => {
    const odd: unknown[] = [
      null,
      0,
      '',
      [],
      {},
      [null],
      [[]],
      { role: 1 },
      [{ role: 'user' }],
      { content: [{}] },
      'x'.repeat(99),
    ];
    for (const input of odd)
      for (const output of odd)
        expect(() =>
          read(
            [
              span('m', 'llm', 1, 2, { input, output } as never),
              span('t', 'tool', 1, 2, { tool: { name: '', kind: 'tool', arguments: input, result: output } }),
              native(9, 'message_generated', { output, input } as never),
            ],
            [turn(0, 'q', 'a')],
          ),
        ).not.toThrow();
  });

  it('may make parents of a ring', () => {
    expect(() =>
      read([span('x', 'llm', 1, 2, { parent_span_id: 'y' }), span('y', 'llm', 1, 2, { parent_span_id: 'x' })], []),
    ).not.toThrow();
  });

  it('may send many', () => {
    const events: StreamEvent[] = [];
    for (let n = 0; n < 1_000; n++) {
      events.push(
        span(`m${String(n)}`, 'llm', n * 2, n * 2 + 1, {
          input: [user(`q${String(n)}`)],
          output: [asks(`c${String(n)}`, 'f', {})],
        }),
        span(`t${String(n)}`, 'tool', n * 2 + 1, n * 2 + 2, {
          tool: { name: 'f', call_id: `c${String(n)}`, kind: 'tool', result: 'r' },
        }),
      );
    }
    const shown = read(events, [turn(0, 'q', 'a')]);
    expect(shown.turns[0]?.groups[0]?.steps.length).toBe(2_000);
  });

  it('may say more than is kept', () => {
    const talk = new Talk();
    for (let n = 0; n < 40; n++) talk.apply(span(`m${String(n)}`, 'llm', n, n + 1, { output: 'x'.repeat(1_000_000) }));
    const shown = conversation(talk, []);
    expect(shown.withoutWords).toBeGreaterThan(10);
    expect(shown.turns[0]?.groups[0]?.steps.length).toBe(40);
  });
});

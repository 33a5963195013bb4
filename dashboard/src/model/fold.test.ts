import { describe, expect, it } from 'vitest';
import type { Row, StreamEvent } from './event';
import { Fold } from './fold';
import { at, spanEvent } from './testing';

let seq = 0;

/** An event of a span that began and, with `to`, ended at so many milliseconds. */
function told(
  id: string,
  parent: string | null,
  from: number,
  to: number | null,
  more: Partial<StreamEvent> = {},
): StreamEvent {
  seq += 1;
  const event_type = to === null ? 'task_started' : 'agent_called';
  return spanEvent(id, parent, from, to, { seq, event_type, kind: 'agent', convention: 'gen_ai:agent', ...more });
}

function folded(...events: StreamEvent[]): Fold {
  const fold = new Fold('t');
  for (const event of events) fold.apply(event);
  return fold;
}

/** The tree as indented text. */
function tree(fold: Fold): string[] {
  const { spans, children } = fold.view();
  const lines: string[] = [];
  const walk = (ids: readonly string[], depth: number) => {
    for (const id of ids) {
      const span = spans.get(id);
      lines.push(`${'  '.repeat(depth)}${id} ${span?.ghost ? 'ghost ' : ''}${span?.state}`);
      walk(children.get(id) ?? [], depth + 1);
    }
  };
  walk(children.get(null) ?? [], 0);
  return lines;
}

describe('the fold of a run', () => {
  it('makes up parents until they come, and holds their children in them', () => {
    seq = 0;
    const fold = folded(told('leaf', 'middle', 20, 30), told('other', 'middle', 10, 40));
    expect(tree(fold)).toEqual(['middle ghost ok', '  other ok', '  leaf ok']);
    const ghost = fold.view().spans.get('middle');
    expect([ghost?.start, ghost?.end].map((ms) => (ms ?? 0) - 1_700_000_000_000)).toEqual([10, 40]);
    fold.apply(told('middle', 'root', 5, 50));
    fold.apply(told('root', null, 0, 60));
    expect(tree(fold)).toEqual(['root ok', '  middle ok', '    other ok', '    leaf ok']);
  });

  it('takes the end of a span, whichever of its events comes first', () => {
    seq = 0;
    const fold = folded(
      told('a', null, 0, null),
      told('a', null, 0, 9),
      told('b', null, 1, 5),
      told('b', null, 1, null),
    );
    expect(tree(fold)).toEqual(['a ok', 'b ok']);
    expect(fold.view().spans.get('a')).toMatchObject({ firstSeq: 1, lastSeq: 2 });
    expect(fold.view().events).toBe(4);
  });

  it('takes an event once', () => {
    seq = 0;
    const first = told('a', null, 0, null);
    const fold = folded(first);
    expect(fold.apply(first)).toBe(false);
    expect(fold.view().events).toBe(1);
  });

  it('cuts cycles: what hangs on itself is a root', () => {
    seq = 0;
    const fold = folded(told('a', 'b', 0, 1), told('b', 'c', 0, 1), told('c', 'a', 0, 1), told('x', 'x', 0, 1));
    expect(tree(fold)).toEqual(['c ok', '  b ok', '    a ok', 'x ok']);
  });

  it('says what is open, stalled, failed and never ended', () => {
    seq = 0;
    const fold = folded(
      told('a', null, 0, null),
      told('b', 'a', 1, 2, { status: 'error', error: { type: 'E', message: 'no' } }),
    );
    expect(tree(fold)).toEqual(['a open', '  b failed']);
    expect(fold.view().spans.get('b')?.error).toBe('no');
    fold.silence('stalled', 5);
    expect(fold.view().spans.get('a')).toMatchObject({ state: 'stalled', stalledSince: 5 });
    fold.apply(told('c', 'a', 3, 4));
    expect(fold.view().spans.get('a')).toMatchObject({ state: 'open', stalledSince: null });
    fold.end('failed');
    expect(fold.view()).toMatchObject({ status: 'failed' });
    expect(fold.view().spans.get('a')?.state).toBe('lost');
    fold.apply(told('d', null, 9, null));
    expect(fold.view().status).toBe('running');
  });

  it('counts tokens of calls, not of the agents around them', () => {
    seq = 0;
    const usage = {
      input_tokens: 3,
      output_tokens: 4,
      total_tokens: 7,
      cached_tokens: 0,
      cache_write_tokens: 0,
      reasoning_tokens: 0,
    };
    const fold = folded(
      told('a', null, 0, 9, { usage }),
      told('l', 'a', 1, 2, { usage, kind: 'llm', model: 'm', cost_usd: 0.5 }),
    );
    expect(fold.view().spans.get('a')).toMatchObject({ inputTokens: null });
    expect(fold.view().spans.get('l')).toMatchObject({ inputTokens: 3, outputTokens: 4, cost: 0.5, model: 'm' });
  });

  it('takes over the server`s tree, and keeps what came after it', () => {
    seq = 0;
    const fold = folded(told('twin', null, 0, 9), told('a', null, 0, null));
    seq += 1;
    fold.apply({
      seq,
      event_type: 'agent_called',
      trace_id: 't',
      timestamp: at(3),
      agent_id: 'x',
      convention: 'native',
    });
    expect(fold.needsTree).toBe(true);
    fold.apply(told('late', 'a', 4, null));
    const row = (span_id: string, parent: string | null): Row => ({
      span_id,
      ...(parent === null ? {} : { parent_span_id: parent }),
      depth: 0,
      name: span_id,
      kind: 'agent',
      status: 'ok',
      start_time: at(0),
      end_time: at(1),
      estimated: false,
      convention: 'x',
    });
    fold.adopt([row('a', null), row('event:3', 'a')], 3);
    expect(tree(fold)).toEqual(['a ok', '  event:3 ok', '  late open']);
    expect(fold.view().spans.get('event:3')).toMatchObject({ firstSeq: 3 });
  });

  it('keeps siblings in the order of their start, also when that moves', () => {
    seq = 0;
    const fold = folded(told('r', null, 0, null));
    for (const start of [5, 3, 9, 1, 7]) fold.apply(told(`s${start}`, 'r', start, start + 1));
    fold.apply(told('s9', 'r', 2, 10));
    expect(fold.view().children.get('r')).toEqual(['s1', 's9', 's3', 's5', 's7']);
    expect(fold.view().children.get(null)).toEqual(['r']);
  });

  it('takes 10,000 spans whose parents come last', { timeout: 60_000 }, () => {
    seq = 0;
    const fold = new Fold('t');
    for (let n = 10_000; n > 0; n -= 1) fold.apply(told(`s${n}`, `p${n % 500}`, n, n + 1));
    for (let n = 0; n < 500; n += 1) fold.apply(told(`p${n}`, 'root', 0, 50_000));
    fold.apply(told('root', null, 0, 50_000));
    expect(fold.view().children.get(null)).toEqual(['root']);
    expect(fold.view().spans.size).toBe(10_501);
  });
});

import { describe, expect, it } from 'vitest';
import type { Row, StreamEvent } from './event';
import { isEarlierRow, rowId } from './earlier';
import { facts } from './facts';
import { ALL, Fold, type Room } from './fold';
import { agentGraph } from './graph';
import { spanEvent, thrower } from './testing';
import { Waterfall } from './waterfall';

const ROOM: Room = { moving: 40, resting: 100, asked: 1000 };

/** The events of a run, and its steps as the server's tree has them. */
class Told {
  seq = 0;
  readonly rows = new Map<string, Row>();

  step(
    id: string,
    parent: string | null,
    from: number,
    to: number | null,
    more: Partial<StreamEvent> = {},
  ): StreamEvent {
    this.seq += 1;
    const event = spanEvent(id, parent, from, to, {
      seq: this.seq,
      event_type: 'tool_called',
      kind: 'tool',
      name: `execute_tool look_up`,
      tool: { kind: 'tool', name: 'look_up' },
      convention: 'gen_ai:tool',
      ...more,
    });
    this.rows.set(id, {
      span_id: id,
      parent_span_id: parent,
      depth: 0,
      name: event.name,
      kind: event.kind,
      agent_name: event.agent_name ?? null,
      status: event.status,
      start_time: event.start_time,
      end_time: event.end_time ?? null,
      estimated: false,
      convention: 'gen_ai:tool',
      model: event.model ?? null,
      usage: event.usage ?? null,
      cost_usd: event.cost_usd ?? null,
      error_type: event.status === 'error' ? 'failed' : null,
    } as unknown as Row);
    return event;
  }

  /** Parents before what is in them. */
  tree(): Row[] {
    return [...this.rows.values()];
  }
}

function steps(fold: Fold): { held: string[]; rows: string[] } {
  const ids = [...fold.view().spans.keys()];
  return { held: ids.filter((id) => !isEarlierRow(id)), rows: ids.filter(isEarlierRow) };
}

/** A root with tools in it, one after the other; every fifth fails, every third is a model call. */
function long(count: number, room = ROOM): { fold: Fold; told: Told } {
  const told = new Told();
  const fold = new Fold('t', room);
  const agent = {
    kind: 'agent',
    name: 'invoke_agent boss',
    agent_name: 'boss',
    tool: null,
  } as unknown as Partial<StreamEvent>;
  fold.apply(told.step('root', null, 0, null, agent));
  fold.move();
  for (let n = 0; n < count; n += 1) {
    const more: Partial<StreamEvent> =
      n % 3 === 0
        ? ({
            kind: 'llm',
            name: 'chat',
            model: 'm',
            usage: { input_tokens: 10, output_tokens: 1 },
            cost_usd: 0.5,
          } as object)
        : {};
    if (n % 50 === 7) Object.assign(more, { status: 'error', error: { type: 'Boom', message: 'boom' } });
    fold.apply(told.step(`s${n}`, 'root', 10 * n, 10 * n + 8, more));
  }
  return { fold, told };
}

describe('steps that ended long ago', () => {
  it('leave a run that moves and are counted where they were, with nothing lost', () => {
    const { fold } = long(1000);
    const whole = long(1000, ALL).fold;
    const { held, rows } = steps(fold);
    expect(held.length).toBeLessThanOrEqual(48);
    expect(held).toContain('s999');
    expect(rows).toEqual([rowId('root')]);
    expect(fold.goneCount).toBe(1001 - held.length);
    const run = fold.view();
    expect(run.children.get('root')?.slice(0, 2)).toEqual([rowId('root'), held[1]]);
    expect(run.spans.get(rowId('root'))).toMatchObject({ name: `${fold.goneCount} earlier steps`, parent: 'root' });
    const sums = { ...facts(run) };
    expect(sums.held).toBe(held.length);
    expect(sums).toEqual({ ...facts(whole.view()), held: held.length });
    const until = 1_700_000_010_000;
    expect(run.overview.columns(until)).toEqual(whole.view().overview.columns(until));
  });

  it('are in the rows, and in the graph of agents, as if they were there', () => {
    const { fold } = long(1000);
    const whole = long(1000, ALL).fold;
    const waterfall = new Waterfall();
    waterfall.update(fold.view());
    expect([waterfall.spanCount, waterfall.failedCount, waterfall.goneCount]).toEqual([1001, 20, fold.goneCount]);
    expect(waterfall.below('root')).toEqual({ spans: 1000, failed: 20, open: 0 });
    const counts = (of: Fold) => {
      const graph = agentGraph(of.view(), { now: 1_700_000_010_000, agentsOnly: false });
      return [...graph.nodes, ...graph.edges].map((each) => [each.key, each.calls, each.failed, each.total]).sort();
    };
    expect(counts(fold)).toEqual(counts(whole));
    const own = (of: Fold) => agentGraph(of.view(), { now: 1_700_000_010_000, agentsOnly: false }).nodes[0]?.self;
    expect(own(whole)).toBe(2000);
    // What failed leaves later than what ran after it, and is not taken off: its time may have been another's.
    expect(own(fold)).toBe(2080);
  });

  it('are not told of twice when they are told of once more', () => {
    const { fold, told } = long(1000);
    const before = fold.goneCount;
    fold.apply(told.step('s3', 'root', 30, 39));
    expect(fold.goneCount).toBe(before);
    expect(facts(fold.view()).spans).toBe(1001);
    expect(fold.needsTree).toBe(true);
  });

  it('come back when the run stands still, when they are asked for, and one by one when they are looked at', () => {
    const { fold, told } = long(90);
    expect(fold.goneCount).toBeGreaterThan(40);
    fold.keep(new Set(['s2']));
    expect(fold.isGone('s2')).toBe(true);
    fold.adopt(told.tree(), told.seq);
    expect(fold.isGone('s2')).toBe(false);
    expect(steps(fold).held.length).toBeLessThanOrEqual(40);
    expect(facts(fold.view()).spans).toBe(91);

    fold.end('completed');
    expect(fold.rest()).toBe(true);
    fold.adopt(told.tree(), told.seq);
    expect([fold.goneCount, steps(fold).rows]).toEqual([0, []]);
    expect(fold.rest()).toBe(false);

    const more = long(1000);
    more.fold.more();
    more.fold.adopt(more.told.tree(), more.told.seq);
    expect(more.fold.goneCount).toBe(0);
    expect(facts(more.fold.view()).spans).toBe(1001);
  });

  it('stay with what the server has not heard of yet', () => {
    const { fold, told } = long(1000);
    const count = fold.goneCount;
    fold.adopt([...told.tree()].slice(0, 100), 100);
    expect(fold.goneCount).toBeGreaterThanOrEqual(count);
    expect(facts(fold.view()).spans).toBe(1001);
  });

  it('go branch by branch, whatever the shape, and the sums are those of the whole', () => {
    for (let seed = 1; seed <= 5; seed += 1) {
      const die = thrower(seed);
      const told = new Told();
      const [fold, whole] = [new Fold('t', ROOM), new Fold('t', ALL)];
      fold.move();
      const followed = new Waterfall();
      const all: { id: string; parent: string | null; start: number }[] = [];
      const take = (event: StreamEvent) => {
        fold.apply(event);
        whole.apply(event);
      };
      for (let n = 0; n < 600; n += 1) {
        const parent = n === 0 || die(20) === 0 ? null : (all[Math.max(0, all.length - 1 - die(30))]?.id ?? null);
        const kind = (['agent', 'llm', 'tool', 'task'] as const)[die(4)];
        all.push({ id: `s${n}`, parent, start: n });
        take(told.step(`s${n}`, parent, n, null, { kind, ...(kind === 'llm' ? { cost_usd: 1 } : {}) } as object));
        const ending = all[die(all.length)];
        if (ending !== undefined && die(10) > 0)
          take(
            told.step(ending.id, ending.parent, ending.start, n + 1, {
              status: die(9) === 0 ? 'error' : 'ok',
            } as object),
          );
        if (n % 3 === 0) followed.update(fold.view());
      }
      const run = fold.view();
      const astray = [...run.spans].filter(
        ([id, span]) =>
          run.children.get(span.parent)?.includes(id) !== true || (span.parent !== null && !run.spans.has(span.parent)),
      );
      expect(astray).toEqual([]);
      followed.update(run);
      const anew = new Waterfall();
      anew.update(run);
      expect(followed.slice(0, 1e6)).toEqual(anew.slice(0, 1e6));
      expect([followed.spanCount, followed.failedCount, followed.openCount, followed.goneCount]).toEqual([
        anew.spanCount,
        anew.failedCount,
        anew.openCount,
        anew.goneCount,
      ]);
      fold.adopt(told.tree(), told.seq);
      whole.adopt(told.tree(), told.seq);
      expect(fold.goneCount).toBeGreaterThan(0);
      expect({ ...facts(fold.view()), held: 0 }).toEqual({ ...facts(whole.view()), held: 0 });
      const waterfall = new Waterfall();
      waterfall.update(fold.view());
      expect(waterfall.spanCount).toBe(whole.view().spans.size);
    }
  });
});

import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { Connection, type Effect, type ServerDigest } from './stream';

const data = (seq: number, more = ''): string =>
  JSON.stringify({ seq, event_type: 'agent_called', agent_id: `ü${more}`, trace_id: 't' });
const frame = (seq: number, more = '') => ({ id: `${seq}-7`, name: null, data: data(seq, more) });
const named = (name: string, of: unknown, id: string | null = null) => ({ id, name, data: JSON.stringify(of) });
const digest = (seqs: readonly number[]): ServerDigest => ({
  through: seqs.at(-1) ?? 0,
  events: seqs.length,
  sha256: createHash('sha256')
    .update(seqs.map((seq) => `${data(seq)}\n`).join(''))
    .digest('hex'),
});
const kinds = (effects: readonly Effect[]) => effects.map((effect) => effect.do);

/** A connection that is open and has these events. */
function opened(seqs: readonly number[], target = seqs.length): Connection {
  const connection = new Connection();
  connection.start(0);
  expect(kinds(connection.answered(200, '', null, 0))).toEqual(['ask']);
  connection.told(target, 'running');
  for (const seq of seqs) connection.frame(frame(seq), 0);
  return connection;
}

describe('a connection to a run', () => {
  it('catches up, follows, and is complete when count and digest are the server`s', () => {
    const connection = opened([1], 2);
    expect(connection.state).toBe('catching up');
    connection.frame(frame(2), 0);
    expect(connection.state).toBe('connected');
    const ended = connection.frame(named('end', { status: 'failed' }), 0);
    expect(ended).toEqual([{ do: 'end', status: 'failed' }, { do: 'close' }, { do: 'check', through: 2 }]);
    expect(connection.state).toBe('checking');
    const after = connection.checked(digest([1, 2]), 2, 0);
    expect(after).toEqual([{ do: 'open', with: { cursor: '2-7', until: 'next' } }]);
    expect(connection.state).toBe('verified complete');
    connection.answered(200, '', null, 0);
    expect(connection.state).toBe('verified complete');
    // A stream that stays says the end of the run again.
    expect(connection.frame(named('end', { status: 'failed' }), 0)).toEqual([]);
    expect(connection.state).toBe('verified complete');
  });

  it('goes on with the next run of the same trace, and checks that one too', () => {
    const connection = opened([1]);
    connection.frame(named('end', { status: 'completed' }), 0);
    connection.checked(digest([1]), 1, 0);
    connection.answered(200, '', null, 0);
    expect(kinds(connection.frame(frame(2), 0))).toEqual(['apply']);
    expect(connection.state).toBe('connected');
    expect(kinds(connection.frame(named('end', { status: 'completed' }), 0))).toEqual(['end', 'close', 'check']);
    connection.checked(digest([1, 2]), 2, 0);
    expect(connection.state).toBe('verified complete');
  });

  it('comes back with its cursor after a cut, and takes what it knows only once', () => {
    const connection = opened([1, 2]);
    connection.closed(0);
    expect(connection.state).toBe('reconnecting');
    expect(connection.tick(500)).toEqual([]);
    expect(connection.tick(1_000)).toEqual([{ do: 'open', with: { cursor: '2-7', until: 'end' } }]);
    connection.answered(200, '', null, 1_000);
    expect(connection.frame(frame(2), 1_000)).toEqual([]);
    expect(kinds(connection.frame(frame(3), 1_000))).toEqual(['apply']);
    expect(connection.digest).toBe(digest([1, 2, 3]).sha256);
    expect(connection.count).toBe(3);
  });

  it('waits longer each time that the server is away, and not when somebody asks', () => {
    const connection = opened([1]);
    const waits: number[] = [];
    let now = 0;
    for (let attempt = 0; attempt < 8; attempt += 1) {
      connection.failed(now, 1);
      const from = now;
      while (kinds(connection.tick(now)).length === 0) now += 100;
      waits.push(now - from);
    }
    expect(waits).toEqual([1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000, 15_000]);
    connection.failed(now, 1);
    expect(kinds(connection.again(now))).toEqual(['open']);
  });

  it('takes a 204 for the end that was lost to a cut', () => {
    const connection = opened([1, 2]);
    connection.closed(0);
    connection.tick(1_000);
    expect(connection.answered(204, '', null, 1_000)).toEqual([{ do: 'check', through: 2 }]);
    expect(kinds(connection.checked(digest([1, 2]), 2, 1_000))).toEqual(['ask', 'open']);
    expect(connection.told(2, 'completed')).toEqual([{ do: 'end', status: 'completed' }]);
    expect(connection.state).toBe('verified complete');
  });

  it('loads the run anew when the server has something else, and gives up saying so', () => {
    const connection = opened([1, 2]);
    for (let reload = 1; reload <= 3; reload += 1) {
      connection.frame(named('end', { status: 'completed' }), 0);
      expect(kinds(connection.checked(digest([1, 2, 3]), 2, 0))).toEqual(['close', 'reset', 'open']);
      expect(connection.reloads).toBe(reload);
      expect(connection.count).toBe(0);
      connection.answered(200, '', null, 0);
      for (const seq of [1, 2]) connection.frame(frame(seq), 0);
    }
    connection.frame(named('end', { status: 'completed' }), 0);
    connection.checked(digest([1, 2, 3]), 2, 0);
    expect(connection.state).toBe('not verified');
    expect(connection.verified).toBe(false);
  });

  it('says what cannot be shown, and begins anew where the log is another', () => {
    const connection = opened([]);
    connection.frame(named('gap', { reason: 'trimmed', from: 1, to: 5 }, '5-7'), 0);
    connection.frame(frame(6), 0);
    expect(connection.state).toBe('gap');
    expect(connection.gaps).toEqual([{ reason: 'trimmed', from: 1, to: 5 }]);
    const replaced = connection.frame(named('gap', { reason: 'replaced', known: 6, from: 7 }), 0);
    expect(kinds(replaced)).toEqual(['reset', 'ask']);
    expect(kinds(connection.frame(frame(7), 0))).toEqual(['apply']);
    expect(connection.digest).toBe(digest([7]).sha256);
  });

  it('asks again for a hole that nobody told of, once', () => {
    const connection = opened([1]);
    expect(connection.frame(frame(4), 0)).toEqual([
      { do: 'close' },
      { do: 'open', with: { cursor: '1-7', until: 'end' } },
    ]);
    connection.answered(200, '', null, 0);
    expect(kinds(connection.frame(frame(4), 0))).toEqual(['apply']);
    expect(connection.gaps).toEqual([{ reason: 'missing', from: 2, to: 3 }]);
  });

  it('opens a dead connection again: after silence, after sleep', () => {
    const silent = opened([1]);
    for (let now = 1_000; now <= 45_000; now += 1_000) expect(silent.tick(now)).toEqual([]);
    expect(kinds(silent.tick(46_000))).toEqual(['close', 'open']);
    const asleep = opened([1]);
    asleep.tick(1_000);
    expect(kinds(asleep.tick(40_000))).toEqual(['close', 'open']);
  });

  it('gives its place back while nobody looks', () => {
    const connection = opened([1]);
    connection.hidden(0);
    expect(connection.tick(9_000)).toEqual([]);
    expect(kinds(connection.tick(10_000))).toEqual(['close']);
    expect(connection.state).toBe('paused');
    expect(connection.tick(90_000)).toEqual([]);
    expect(connection.shown(91_000)).toEqual([{ do: 'open', with: { cursor: '1-7', until: 'end' } }]);
  });

  it('tells apart who may not look and what is not there', () => {
    const refused = new Connection();
    refused.start(0);
    refused.answered(401, 'a token is needed', null, 0);
    expect(refused.state).toBe('refused');
    expect(refused.tick(60_000)).toEqual([]);
    expect(kinds(refused.again(60_000))).toEqual(['open']);
    const absent = new Connection();
    absent.start(0);
    absent.answered(404, 'no such trace', null, 0);
    expect(absent.state).toBe('absent');
    expect(kinds(absent.tick(5_000))).toEqual(['open']);
    const busy = new Connection();
    busy.start(0);
    busy.answered(429, '', 3_000, 0);
    expect(busy.tick(2_900)).toEqual([]);
    expect(kinds(busy.tick(3_000))).toEqual(['open']);
  });

  it('is compared on demand, and asks again when nobody answered', () => {
    const connection = opened([1, 2]);
    expect(connection.check()).toEqual([{ do: 'check', through: 2 }]);
    connection.checked(digest([1, 2]), 2, 0);
    expect(connection.verified).toBe(true);
    expect(connection.state).toBe('connected');
    connection.frame(named('end', { status: 'completed' }), 0);
    connection.checked(null, 2, 0);
    connection.answered(200, '', null, 0);
    expect(connection.state).toBe('not verified');
    expect(connection.tick(4_900)).toEqual([]);
    expect(connection.tick(5_000)).toEqual([{ do: 'check', through: 2 }]);
    connection.checked(digest([1, 2]), 2, 5_000);
    expect(connection.state).toBe('verified complete');
  });

  it('of a deleted run stays away', () => {
    const connection = opened([1]);
    expect(kinds(connection.frame(named('end', { status: 'deleted' }), 0))).toEqual(['end', 'close']);
    expect(connection.tick(60_000)).toEqual([]);
  });
});

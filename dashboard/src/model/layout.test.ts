import { expect, test } from 'vitest';
import { agentGraph, type AgentGraph } from './graph';
import {
  arranged,
  bounds,
  drawable,
  grown,
  line,
  NODE_HEIGHT,
  NODE_WIDTH,
  NO_LAYOUT,
  stacked,
  type Layout,
} from './layout';
import { runOf, span } from './testing';

/** A graph of agents from words like `a>b`. */
function graphOf(...calls: string[]): AgentGraph {
  const spans = [];
  let at = 0;
  for (const call of calls) {
    const [from = '', to] = call.split('>');
    at += 2;
    spans.push(span(`${at}`, { kind: 'agent', agent: from, start: at, end: at + 1 }));
    if (to !== undefined)
      spans.push(span(`${at}.`, { kind: 'agent', agent: to, parent: `${at}`, start: at, end: at + 1 }));
  }
  return agentGraph(runOf(spans, 'completed'), { now: 0, agentsOnly: false });
}

function overlaps({ places }: Layout): number {
  const all = [...places.values()];
  return all.filter((one, at) =>
    all.some(
      (other, more) => more > at && Math.abs(one.x - other.x) < NODE_WIDTH && Math.abs(one.y - other.y) < NODE_HEIGHT,
    ),
  ).length;
}

test('callers stand to the left of those that they call, and nothing stands on anything', () => {
  const graph = graphOf('a>b', 'a>c', 'b>d', 'c>d', 'd>a');
  const layout = arranged(graph);
  const x = (name: string): number => layout.places.get(`agent:${name}`)?.x ?? NaN;
  expect(x('a')).toBeLessThan(x('b'));
  expect(x('b')).toBe(x('c'));
  expect(x('c')).toBeLessThan(x('d'));
  expect(overlaps(layout)).toBe(0);
  for (const edge of graph.edges) expect(line(layout, edge)?.path).toMatch(/^M[-\d.]+ [-\d.]+C/);
});

test('what stands stays while a run moves, and what is new finds room', () => {
  const calls = ['a>b', 'a>c', 'c>d'];
  let layout = arranged(graphOf(...calls));
  for (const call of ['a>e', 'a>f', 'f>g', 'd>a', 'x', 'x>y']) {
    calls.push(call);
    const graph = graphOf(...calls);
    const before = layout;
    layout = grown(layout, graph);
    for (const [key, place] of before.places) expect(layout.places.get(key)).toEqual(place);
    expect(layout.places.size).toBe(graph.nodes.length);
    expect(overlaps(layout)).toBe(0);
    for (const edge of graph.edges) expect(line(layout, edge)).not.toBe(null);
  }
  expect(grown(layout, graphOf(...calls))).toBe(layout);
  expect(bounds(layout).width).toBeGreaterThan(NODE_WIDTH * 3);
});

test('on a narrow screen callers stand above what they called, and all of it is as wide as one and a half', () => {
  const calls = ['a>b', 'b>d', 'a>c', 'c>d', 'd>a', 'e>e', 'f>g', 'g>f'];
  const graph = graphOf(...calls);
  let layout = stacked(graph);
  const order = [...layout.places].sort(([, one], [, other]) => one.y - other.y).map(([key]) => key.slice(6));
  expect(order).toEqual(['a', 'b', 'd', 'c', 'e', 'f', 'g']);
  expect(overlaps(layout)).toBe(0);
  expect(bounds(layout).width).toBeLessThan(NODE_WIDTH * 1.6);
  layout = grown(layout, graphOf(...calls, 'c>h'));
  expect(layout.places.get('agent:h')?.y).toBeGreaterThan(layout.places.get('agent:g')?.y ?? NaN);
  expect(overlaps(layout)).toBe(0);
  for (const edge of graph.edges) expect(line(layout, edge)?.path).toMatch(/^M[-\d.]+ [-\d.]+[VC]/);
});

test('nothing is drawn of nothing', () => {
  expect(arranged({ nodes: [], edges: [] }).places.size).toBe(0);
  expect(bounds(NO_LAYOUT)).toEqual({ left: 0, top: 0, width: 0, height: 0 });
});

test('of a graph that is too large for a picture agents and what took longest are drawn', () => {
  const spans = [span('a', { kind: 'agent', agent: 'a', start: 0, end: 9999 })];
  for (let at = 0; at < 500; at += 1)
    spans.push(span(`t${at}`, { kind: 'tool', tool: `t${at}`, parent: 'a', start: at, end: at * 2 }));
  const part = drawable(agentGraph(runOf(spans), { now: 0, agentsOnly: false }), 3);
  expect(part.nodes.map((node) => node.name)).toEqual(['a', 't498', 't499']);
  expect(part.edges).toHaveLength(2);
});

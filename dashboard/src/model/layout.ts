/**
 * Where the nodes of an agent graph stand, in pixels of an unscaled picture.
 *
 * A graph is arranged once, in layers from left to right. While its run moves, what is new finds a free place beside those that called it, and what stands stays.
 */

import { Graph, layout as layOut } from '@dagrejs/dagre';
import type { AgentGraph, GraphEdge, GraphNode } from './graph';

export interface Point {
  readonly x: number;
  readonly y: number;
}

export interface Layout {
  /** The middle of each node. */
  readonly places: ReadonlyMap<string, Point>;
  /** How an edge goes around the nodes between its ends, with them; an edge that is not here goes straight. */
  readonly bends: ReadonlyMap<string, readonly Point[]>;
  /** One under another, those that were called set in below their callers: for a narrow screen. */
  readonly isColumn: boolean;
}

export interface Line {
  /** An SVG path. */
  readonly path: string;
  /** Where its label stands. */
  readonly label: Point;
}

export const NODE_WIDTH = 192;
export const NODE_HEIGHT = 60;
const LABEL_WIDTH = 108;
const LABEL_HEIGHT = 24;
const GAP_X = 128;
const GAP_Y = 28;

/** More nodes than this are no picture any more; the layout would take seconds. */
export const MOST_NODES = 120;

/** In a column: how far what is called is set in, at most so often, and the room between two for the labels. */
const INDENT = 28;
const MOST_INDENTS = 4;
const COLUMN_STEP = NODE_HEIGHT + 36;

export const NO_LAYOUT: Layout = { places: new Map(), bends: new Map(), isColumn: false };

/** The part of a graph that is drawn: agents before what they used, then those with the most time; in its order. */
export function drawable(graph: AgentGraph, most = MOST_NODES): AgentGraph {
  if (graph.nodes.length <= most) return graph;
  const rank = (node: GraphNode): number => (node.kind === 'agent' || node.kind === 'workflow' ? 0 : 1);
  const chosen = [...graph.nodes]
    .sort((one, other) => rank(one) - rank(other) || other.total - one.total)
    .slice(0, most);
  const kept = new Set(chosen.map((node) => node.key));
  return {
    nodes: graph.nodes.filter((node) => kept.has(node.key)),
    edges: graph.edges.filter((edge) => kept.has(edge.from) && kept.has(edge.to)),
  };
}

/** What the library is told of a node or a label, and tells. */
interface Box {
  width: number;
  height: number;
  x?: number;
  y?: number;
}

/** All of it anew, in layers. */
export function arranged(graph: AgentGraph): Layout {
  const picture = new Graph<object, Box, Box & { labelpos: 'c'; points?: Point[] }>({ multigraph: true });
  picture.setGraph({ rankdir: 'LR', nodesep: GAP_Y, ranksep: GAP_X - LABEL_WIDTH, edgesep: 12 });
  for (const node of graph.nodes) picture.setNode(node.key, { width: NODE_WIDTH, height: NODE_HEIGHT });
  for (const edge of graph.edges) {
    picture.setEdge(edge.from, edge.to, { width: LABEL_WIDTH, height: LABEL_HEIGHT, labelpos: 'c' }, edge.key);
  }
  layOut(picture);
  const places = new Map<string, Point>();
  for (const node of graph.nodes) {
    const { x, y } = picture.node(node.key);
    if (x !== undefined && y !== undefined) places.set(node.key, { x, y });
  }
  const bends = new Map<string, readonly Point[]>();
  for (const edge of graph.edges) {
    const points = picture.edge(edge.from, edge.to, edge.key).points ?? [];
    if (points.length >= 2)
      bends.set(
        edge.key,
        points.map(({ x, y }) => ({ x, y })),
      );
  }
  return { places, bends, isColumn: false };
}

/** All of it anew, in one column: callers above what they called, each where it was called first. */
export function stacked(graph: AgentGraph): Layout {
  const called = new Map<string, string[]>();
  for (const edge of graph.edges) {
    const list = called.get(edge.from);
    if (list === undefined) called.set(edge.from, [edge.to]);
    else list.push(edge.to);
  }
  const inner = new Set(graph.edges.filter((edge) => edge.from !== edge.to).map((edge) => edge.to));
  const places = new Map<string, Point>();
  // The first, and those that nobody called; what only goes round in a circle after them.
  for (const wanted of [graph.nodes.filter((node, at) => at === 0 || !inner.has(node.key)), graph.nodes]) {
    const stack = wanted.map((node) => ({ key: node.key, depth: 0 })).reverse();
    for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
      if (places.has(next.key)) continue;
      places.set(next.key, inColumn(places.size, next.depth));
      for (const key of [...(called.get(next.key) ?? [])].reverse()) stack.push({ key, depth: next.depth + 1 });
    }
  }
  return { places, bends: new Map(), isColumn: true };
}

function inColumn(place: number, depth: number): Point {
  return { x: NODE_WIDTH / 2 + Math.min(depth, MOST_INDENTS) * INDENT, y: NODE_HEIGHT / 2 + place * COLUMN_STEP };
}

/** Finds places for what is new; the same layout when nothing is. */
export function grown(layout: Layout, graph: AgentGraph): Layout {
  const added = graph.nodes.filter((node) => !layout.places.has(node.key));
  if (added.length === 0) return layout;
  const places = new Map(layout.places);
  for (const node of added) {
    const caller = graph.edges.find((edge) => edge.to === node.key && places.has(edge.from));
    const called = graph.edges.find((edge) => edge.from === node.key && places.has(edge.to));
    const from = places.get(caller?.from ?? '');
    const to = places.get(called?.to ?? '');
    if (layout.isColumn) {
      const depth = from === undefined ? 0 : 1 + Math.round((from.x - NODE_WIDTH / 2) / INDENT);
      places.set(node.key, inColumn(places.size, depth));
      continue;
    }
    let wanted = { x: NODE_WIDTH / 2, y: NODE_HEIGHT / 2 };
    if (from !== undefined) wanted = { x: from.x + NODE_WIDTH + GAP_X, y: from.y };
    else if (to !== undefined) wanted = { x: to.x - NODE_WIDTH - GAP_X, y: to.y };
    places.set(node.key, free(places, wanted));
  }
  return { places, bends: layout.bends, isColumn: layout.isColumn };
}

/** The nearest place in the same column at which nothing stands: below first. */
function free(places: ReadonlyMap<string, Point>, wanted: Point): Point {
  const step = NODE_HEIGHT + GAP_Y;
  for (let away = 0; away <= 2 * places.size; away += 1) {
    const y = wanted.y + (away % 2 === 1 ? (away + 1) / 2 : -away / 2) * step;
    const taken = [...places.values()].some(
      (each) => Math.abs(each.x - wanted.x) < NODE_WIDTH + 16 && Math.abs(each.y - y) < step - 1,
    );
    if (!taken) return { x: wanted.x, y };
  }
  return wanted;
}

/** What the picture covers, with room at its edges. */
export function bounds(layout: Layout): { left: number; top: number; width: number; height: number } {
  const points = [...layout.places.values()];
  if (points.length === 0) return { left: 0, top: 0, width: 0, height: 0 };
  const all = [...layout.bends.values()].flat();
  const left = Math.min(...points.map((each) => each.x - NODE_WIDTH / 2), ...all.map((each) => each.x)) - 24;
  const right = Math.max(...points.map((each) => each.x + NODE_WIDTH / 2), ...all.map((each) => each.x)) + 24;
  const top = Math.min(...points.map((each) => each.y - NODE_HEIGHT / 2), ...all.map((each) => each.y)) - 24;
  const bottom = Math.max(...points.map((each) => each.y + NODE_HEIGHT / 2), ...all.map((each) => each.y)) + 40;
  return { left, top, width: right - left, height: bottom - top };
}

export function line(layout: Layout, edge: GraphEdge): Line | null {
  const from = layout.places.get(edge.from);
  const to = layout.places.get(edge.to);
  if (from === undefined || to === undefined) return null;
  if (layout.isColumn) return beside(from, to);
  const bends = layout.bends.get(edge.key);
  if (bends !== undefined) return through(from, bends.slice(1, -1), to);
  if (to.x - from.x >= NODE_WIDTH) {
    const [x1, x2] = [from.x + NODE_WIDTH / 2, to.x - NODE_WIDTH / 2];
    const middle = (x1 + x2) / 2;
    return {
      path: `M${x1} ${from.y}C${middle} ${from.y} ${middle} ${to.y} ${x2} ${to.y}`,
      label: { x: middle, y: (from.y + to.y) / 2 },
    };
  }
  // Back, or within a column: below both.
  const [y1, y2] = [from.y + NODE_HEIGHT / 2, to.y + NODE_HEIGHT / 2];
  const low = Math.max(y1, y2) + 36;
  return {
    path: `M${from.x} ${y1}C${from.x} ${low} ${to.x} ${low} ${to.x} ${y2}`,
    label: { x: (from.x + to.x) / 2, y: (y1 + y2) / 8 + low * 0.75 },
  };
}

/** In a column: down from the caller's foot and in from the left; back and to what is not set in, around the right. */
function beside(from: Point, to: Point): Line {
  const above = to.y - NODE_HEIGHT / 2 - 16;
  const [foot, left] = [from.x - NODE_WIDTH / 2 + INDENT / 2, to.x - NODE_WIDTH / 2];
  if (to.y > from.y && left > foot)
    return {
      path: `M${foot} ${from.y + NODE_HEIGHT / 2}V${to.y - 8}C${foot} ${to.y} ${foot} ${to.y} ${left} ${to.y}`,
      label: { x: left + 64, y: above },
    };
  const [x1, x2] = [from.x + NODE_WIDTH / 2, to.x + NODE_WIDTH / 2];
  const out = Math.max(x1, x2) + 24;
  return {
    path: `M${x1} ${from.y}C${out} ${from.y} ${out} ${to.y} ${x2} ${to.y}`,
    label: { x: x2 - 44, y: above },
  };
}

/** A soft line that leaves and enters nodes at their sides, and points on its way level. */
function through(from: Point, bends: readonly Point[], to: Point): Line {
  const side = to.x >= from.x ? NODE_WIDTH / 2 : -NODE_WIDTH / 2;
  const points = [{ x: from.x + side, y: from.y }, ...bends, { x: to.x - side, y: to.y }];
  const [first, ...rest] = points;
  let path = `M${(first?.x ?? 0).toFixed(1)} ${(first?.y ?? 0).toFixed(1)}`;
  let last = first ?? from;
  for (const point of rest) {
    const middle = ((last.x + point.x) / 2).toFixed(1);
    path += `C${middle} ${last.y.toFixed(1)} ${middle} ${point.y.toFixed(1)} ${point.x.toFixed(1)} ${point.y.toFixed(1)}`;
    last = point;
  }
  const label = bends[Math.floor((bends.length - 1) / 2)] ?? { x: (from.x + to.x) / 2, y: (from.y + to.y) / 2 };
  return { path, label };
}

// Which panels there are, each loaded when it is first shown. A panel is a file; one that is not there is left out.

import type { Component } from 'svelte';
import type { Run, Span } from '../model/run';
import type { View } from '../model/route';

export interface PanelProps {
  run: Run;
  /** The time that open spans have grown to, milliseconds since 1970. */
  now: number;
  selected: string | null;
  onselect: (id: string | null) => void;
  /** Brings back steps that are only counted; and which are looked at, so that they stay. */
  onmore?: () => void;
  onkeep?: (ids: readonly string[]) => void;
}

export interface DetailProps {
  runId: string;
  /** `null`: the page knows the id from its address, but no such span (yet). */
  span: Span | null;
  run: Run;
  now: number;
  onselect: (id: string | null) => void;
}

type Loader<P extends Record<string, unknown>> = () => Promise<{ default: Component<P> }>;

const files = import.meta.glob([
  './Waterfall.svelte',
  './AgentGraph.svelte',
  './Conversation.svelte',
  './Findings.svelte',
  './Detail.svelte',
  './Compare.svelte',
  './Evaluate.svelte',
  './FileDrop.svelte',
]);

function load<P extends Record<string, unknown>>(name: string): Loader<P> | null {
  return (files[`./${name}.svelte`] as Loader<P> | undefined) ?? null;
}

export interface Panel {
  view: View;
  label: string;
  load: Loader<PanelProps & Record<string, unknown>>;
}

const all: { view: View; label: string; file: string }[] = [
  { view: 'waterfall', label: 'Waterfall', file: 'Waterfall' },
  { view: 'graph', label: 'Agents', file: 'AgentGraph' },
  { view: 'conversation', label: 'Conversation', file: 'Conversation' },
  { view: 'findings', label: 'Findings', file: 'Findings' },
];

export const panels: readonly Panel[] = all.flatMap(({ view, label, file }) => {
  const loader = load<PanelProps & Record<string, unknown>>(file);
  return loader === null ? [] : [{ view, label, load: loader }];
});

export const detail = load<DetailProps & Record<string, unknown>>('Detail');
/** Whole pages: they read their part of the address from `lib/nav.svelte.ts`. */
export const compare = load<Record<string, never>>('Compare');
export const evaluate = load<Record<string, never>>('Evaluate');
/** Listens for dropped files on every page. */
export const fileDrop = load<Record<string, never>>('FileDrop');

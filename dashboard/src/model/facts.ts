// A run in a few numbers, from its spans as they are now. The whole of them is looked at: once for each version of the run.

import type { Run } from './run';

export interface Facts {
  /** Of its first root that is known. */
  name: string | null;
  agents: number;
  spans: number;
  /** Of them in the page's memory; the others are only counted. */
  held: number;
  failed: number;
  inputTokens: number;
  outputTokens: number;
  /** `null` when no cost is known: that is not nothing. */
  cost: number | null;
  /** The last end there is. */
  end: number | null;
  stalledSince: number | null;
}

let last: { run: Pick<Run, 'id' | 'version'>; spans: unknown; facts: Facts } | null = null;

export function facts(run: Run): Facts {
  // The page derives this anew ten times a second while a run goes on, and most of the time nothing has come.
  if (last !== null && last.spans === run.spans && last.run.version === run.version) return last.facts;
  const agents = new Set<string>();
  const facts: Facts = {
    name: null,
    agents: 0,
    spans: 0,
    held: 0,
    failed: 0,
    inputTokens: 0,
    outputTokens: 0,
    cost: null,
    end: null,
    stalledSince: null,
  };
  for (const span of run.spans.values()) {
    if (span.end !== null && (facts.end === null || span.end > facts.end)) facts.end = span.end;
    if (span.earlier !== null) {
      const { earlier } = span;
      facts.held -= earlier.steps;
      facts.spans += earlier.steps;
      facts.failed += earlier.failed;
      facts.inputTokens += earlier.inputTokens;
      facts.outputTokens += earlier.outputTokens;
      if (earlier.cost !== null) facts.cost = (facts.cost ?? 0) + earlier.cost;
      for (const agent of earlier.agents) agents.add(agent);
      continue;
    }
    if (span.agent !== null) agents.add(span.agent);
    if (!span.ghost) facts.spans += 1;
    if (span.state === 'failed') facts.failed += 1;
    facts.inputTokens += span.inputTokens ?? 0;
    facts.outputTokens += span.outputTokens ?? 0;
    if (span.cost !== null) facts.cost = (facts.cost ?? 0) + span.cost;
    if (span.stalledSince !== null && run.status === 'running') facts.stalledSince = span.stalledSince;
  }
  facts.agents = agents.size;
  facts.held += facts.spans;
  for (const id of run.children.get(null) ?? []) {
    const root = run.spans.get(id);
    if (root === undefined || root.ghost || root.earlier !== null) continue;
    facts.name = root.agent ?? root.name;
    break;
  }
  last = { run, spans: run.spans, facts };
  return facts;
}

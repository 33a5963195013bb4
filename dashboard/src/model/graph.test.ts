import { expect, test } from 'vitest';
import { agentGraph, type AgentGraph } from './graph';
import { runOf, span } from './testing';

const asked = { now: 1000, agentsOnly: false };
const said = (graph: AgentGraph): string[] => [
  ...graph.nodes.map((node) => `${node.key} x${node.calls} ${node.total}/${node.self}`),
  ...graph.edges.map((edge) => `${edge.from} -> ${edge.to} x${edge.calls} ${edge.total}`),
];

const crew = [
  span('run', { kind: 'workflow', name: 'crew', start: 0, end: 100 }),
  span('plan', { kind: 'agent', agent: 'planner', parent: 'run', start: 0, end: 90 }),
  span('step', { parent: 'plan', start: 5, end: 80 }),
  span('call 1', { kind: 'llm', model: 'gpt', parent: 'step', start: 10, end: 30 }),
  span('request', { kind: 'llm', model: 'gpt-2025', parent: 'call 1', start: 11, end: 29 }),
  span('call 2', { kind: 'llm', model: 'gpt', parent: 'step', start: 20, end: 40 }),
  span('ask', { kind: 'tool', tool: 'ask_writer', parent: 'plan', start: 40, end: 85, state: 'failed' }),
  span('write', { kind: 'agent', agent: 'writer', parent: 'ask', start: 45, end: 80, state: 'failed' }),
  span('wrapped', { kind: 'agent', agent: 'writer', parent: 'write', start: 46, end: 79, state: 'failed' }),
];

test('counts calls, their time and their own time; what repeats a call is one with it', () => {
  expect(said(agentGraph(runOf(crew, 'completed'), asked))).toEqual([
    'workflow:crew x1 100/10',
    'agent:planner x1 90/15',
    'llm:gpt x2 40/40',
    'tool:ask_writer x1 45/10',
    'agent:writer x1 35/35',
    'workflow:crew -> agent:planner x1 90',
    'agent:planner -> llm:gpt x2 40',
    'agent:planner -> tool:ask_writer x1 45',
    'tool:ask_writer -> agent:writer x1 35',
  ]);
});

test('says where it failed, and which failures were only handed on', () => {
  const graph = agentGraph(runOf(crew, 'failed'), asked);
  const failed = graph.nodes.filter((node) => node.failed > 0);
  expect(failed.map(({ name, failed, arose, failure }) => ({ name, failed, arose, failure }))).toEqual([
    { name: 'ask_writer', failed: 1, arose: 0, failure: 'ask' },
    { name: 'writer', failed: 1, arose: 1, failure: 'write' },
  ]);
});

test('agents alone hold the time of what they used, and are called through it', () => {
  expect(said(agentGraph(runOf(crew, 'completed'), { ...asked, agentsOnly: true }))).toEqual([
    'workflow:crew x1 100/10',
    'agent:planner x1 90/55',
    'agent:writer x1 35/35',
    'workflow:crew -> agent:planner x1 90',
    'agent:planner -> agent:writer x1 35',
  ]);
});

test('an agent without a step of its own holds the steps that name it', () => {
  const run = runOf([
    span('flow', { kind: 'workflow', name: 'flow', start: 0 }),
    span('a', { kind: 'llm', model: 'm', agent: 'scout', parent: 'flow', start: 10, end: 20 }),
    span('b', { kind: 'tool', tool: 't', agent: 'scout', parent: 'flow', start: 30 }),
    span('c', { kind: 'tool', tool: 't', agent: 'other', parent: 'flow', start: 40, end: 50 }),
  ]);
  const graph = agentGraph(run, { ...asked, now: 100 });
  expect(said(graph).slice(0, 5)).toEqual([
    'workflow:flow x1 100/10',
    'agent:scout x1 90/10',
    'llm:m x1 10/10',
    'tool:t x2 80/80',
    'agent:other x1 10/0',
  ]);
  expect(graph.nodes.map((node) => node.open)).toEqual([1, 1, 0, 1, 0]);
});

test('steps that name no agent and call nobody are no graph', () => {
  expect(agentGraph(runOf([span('a', { start: 0, end: 1 })]), asked)).toEqual({ nodes: [], edges: [] });
});

test('a call that calls itself through another is a circle', () => {
  const run = runOf([
    span('a', { kind: 'agent', agent: 'a', start: 0, end: 9 }),
    span('t', { kind: 'tool', tool: 't', parent: 'a', start: 1, end: 8 }),
    span('b', { kind: 'agent', agent: 'a', parent: 't', start: 2, end: 7 }),
  ]);
  expect(said(agentGraph(run, asked))).toEqual([
    'agent:a x2 14/7',
    'tool:t x1 7/2',
    'agent:a -> tool:t x1 7',
    'tool:t -> agent:a x1 5',
  ]);
});

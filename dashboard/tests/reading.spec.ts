// The conversation, a step in full, and the findings, as a person reads them, while the run moves.

import AxeBuilder from '@axe-core/playwright';
import { expect, newTrace, span, test, type OtlpSpan } from './harness';

const trace = newTrace();
const start = Date.now() - 20_000;
const say = (role: string, content: string): object => ({ role, parts: [{ type: 'text', content }] });

function call(of: { id: string; from: number; to: number | null; sent: object[]; answer?: object[] }): OtlpSpan {
  return span({
    trace,
    id: of.id,
    parent: 'a'.repeat(16),
    name: `chat ${of.id.slice(0, 1)}`,
    start: start + of.from,
    end: of.to === null ? null : start + of.to,
    attributes: {
      'gen_ai.operation.name': 'chat',
      'gen_ai.request.model': 'gpt-4o',
      'gen_ai.usage.input_tokens': 100,
      'gen_ai.usage.output_tokens': 20,
      'gen_ai.input.messages': JSON.stringify(of.sent),
      ...(of.answer === undefined ? {} : { 'gen_ai.output.messages': JSON.stringify(of.answer) }),
    },
  });
}

const agent = (end: number | null): OtlpSpan =>
  span({
    trace,
    id: 'a'.repeat(16),
    name: 'invoke_agent guide',
    start,
    end: end === null ? null : start + end,
    attributes: { 'gen_ai.operation.name': 'invoke_agent', 'gen_ai.agent.name': 'guide' },
  });

test('a run is read while it goes on, and each step opened', async ({ page, server }) => {
  test.setTimeout(180_000);
  const asks = {
    role: 'assistant',
    parts: [{ type: 'tool_call', id: 'c1', name: 'weather', arguments: { city: 'Riga' } }],
  };
  const question = [say('system', 'Be brief.'), say('user', 'Is it **warm** in Riga?')];
  const result = { role: 'tool', parts: [{ type: 'tool_call_response', id: 'c1', response: 'station offline' }] };
  const tool = span({
    trace,
    id: 'c'.repeat(16),
    parent: 'a'.repeat(16),
    name: 'execute_tool weather',
    start: start + 3_000,
    end: start + 9_000,
    error: 'station offline',
    attributes: {
      'gen_ai.operation.name': 'execute_tool',
      'gen_ai.tool.name': 'weather',
      'gen_ai.tool.call.id': 'c1',
      'gen_ai.tool.call.arguments': JSON.stringify({ city: 'Riga' }),
      colour: 'teal',
    },
  });
  await server.spans([agent(null), call({ id: 'b'.repeat(16), from: 100, to: null, sent: question })]);

  await page.goto(`/runs/${trace}?view=conversation`);
  const panel = page.getByRole('region', { name: 'Conversation', exact: true });
  await expect(panel.getByText('Is it warm in Riga?')).toBeVisible();
  await expect(panel.getByText('answering')).toBeVisible();

  await server.spans([call({ id: 'b'.repeat(16), from: 100, to: 2_000, sent: question, answer: [asks] }), tool]);
  await expect(panel.getByRole('article', { name: 'Tool call' })).toContainText('station offline');
  await expect(panel.getByText('answering')).toHaveCount(0);
  const again = [...question, asks, result];
  await server.spans([
    call({
      id: 'd'.repeat(16),
      from: 9_100,
      to: 10_000,
      sent: again,
      answer: [say('assistant', 'I cannot tell: the station is offline.')],
    }),
    agent(10_100),
  ]);
  await expect(panel.getByText('I cannot tell: the station is offline.')).toHaveCount(1);

  // What was sent again is folded, and read when it is opened.
  const last = panel.getByRole('article', { name: 'Model call' }).last();
  await expect(last).not.toContainText('Be brief.');
  await last.getByRole('button', { name: /4 messages/u }).click();
  await expect(last).toContainText('Be brief.');

  await panel.getByRole('article', { name: 'Tool call' }).getByRole('button', { name: 'weather' }).click();
  await expect(page).toHaveURL(/span=c{16}/u);
  const aside = page.getByRole('complementary');
  await expect(aside.getByText('Arguments')).toBeVisible();
  await aside.getByRole('tab', { name: /^Content/u }).focus();
  await page.keyboard.press('ArrowRight');
  await aside.getByRole('searchbox').fill('TEAL');
  await expect(aside.getByRole('row')).toHaveCount(1);
  await expect(aside.getByRole('row')).toContainText('colour');
  await aside.getByRole('tab', { name: 'Why' }).click();
  await expect(aside.getByText('gen_ai:operation.name')).toBeVisible();
  expect((await new AxeBuilder({ page }).analyze()).violations).toEqual([]);

  await page.getByRole('link', { name: 'Findings' }).click();
  const findings = page.getByRole('region', { name: 'Findings', exact: true });
  await expect(findings.getByRole('heading', { name: 'Bottleneck' })).toBeVisible();
  await expect(findings.getByRole('table').filter({ hasText: 'By model' })).toContainText('gpt-4o');
  await findings.getByRole('listitem').filter({ hasText: 'Bottleneck' }).getByRole('button').first().click();
  await expect(page).toHaveURL(/span=c{16}/u);
  expect((await new AxeBuilder({ page }).analyze()).violations).toEqual([]);
});

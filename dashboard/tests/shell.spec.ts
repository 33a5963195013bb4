import { expect, test } from './harness';

test('the page is served under its policy and breaks nothing of it', async ({ page }) => {
  const complaints: string[] = [];
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text());
  });
  page.on('pageerror', (error) => complaints.push(error.message));
  const answer = await page.goto('/');
  expect(answer?.headers()['content-security-policy']).toContain("default-src 'none'");
  await expect(page.getByRole('link', { name: 'Tailspan' })).toBeVisible();
  for (const scheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme: scheme });
    await expect(page.locator('body')).toHaveCSS(
      'background-color',
      scheme === 'light' ? 'rgb(255, 255, 255)' : 'rgb(20, 23, 28)',
    );
  }
  expect(complaints).toEqual([]);
});

test('colours are chosen once for all visits', async ({ page }) => {
  await page.goto('/');
  await page.getByRole('button', { name: /Colours/ }).click();
  await page.getByRole('button', { name: /Colours/ }).click();
  await expect(page.getByRole('button', { name: 'Colours: Dark' })).toBeVisible();
  await page.reload();
  await expect(page.getByRole('button', { name: 'Colours: Dark' })).toBeVisible();
  await expect(page.locator('body')).toHaveCSS('background-color', 'rgb(20, 23, 28)');
});

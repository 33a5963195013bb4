/** Puts a text into the clipboard; `false` when the browser does not let the page. */
export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Pages that came over plain HTTP from another machine have no clipboard of their own.
    return copySelected(text);
  }
}

function copySelected(text: string): boolean {
  const field = document.createElement('textarea');
  const focused = document.activeElement;
  field.value = text;
  field.className = 'visually-hidden';
  document.body.append(field);
  field.select();
  try {
    // Deprecated, and the only way there.
    return document.execCommand('copy');
  } catch {
    return false;
  } finally {
    field.remove();
    if (focused instanceof HTMLElement) focused.focus();
  }
}

/** What is selected, with the marks' originals in place of the marks. For `oncopy` around texts that have marks. */
export function copyOriginal(event: ClipboardEvent): void {
  const selection = document.getSelection();
  if (selection === null || selection.isCollapsed || event.clipboardData === null) return;
  const parts = selection.getRangeAt(0).cloneContents();
  const marks = parts.querySelectorAll<HTMLElement>('[data-original]');
  // Nothing was replaced: the browser copies better, with its line breaks between blocks.
  if (marks.length === 0) return;
  for (const mark of marks) mark.textContent = mark.dataset.original ?? '';
  event.clipboardData.setData('text/plain', parts.textContent);
  event.preventDefault();
}

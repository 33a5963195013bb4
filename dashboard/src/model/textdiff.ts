// How two texts differ, within bounds: words where they are short, lines where they are long, nothing where it would take too long.

export interface Part {
  text: string;
  mark: 'same' | 'removed' | 'added';
}

/** Characters of both texts together up to which single words are compared. */
const WORDS = 40_000;
/** Changes beyond which two texts are another text each, and milliseconds after which nobody waits. */
const MOST_CHANGES = 4_000;
const MOST_MS = 250;

/** The parts of both, in order; `null`: they differ too much to mark it. The library is loaded when it is first wanted. */
export async function difference(a: string, b: string): Promise<Part[] | null> {
  if (a === b) return [{ text: a, mark: 'same' }];
  const { diffLines, diffWordsWithSpace } = await import('diff');
  const bounds = { maxEditLength: MOST_CHANGES, timeout: MOST_MS };
  const words = a.length + b.length <= WORDS ? diffWordsWithSpace(a, b, bounds) : undefined;
  const found = words ?? diffLines(a, b, bounds);
  if (found === undefined) return null;
  return found.map((part) => ({ text: part.value, mark: part.added ? 'added' : part.removed ? 'removed' : 'same' }));
}

/** Characters of an equal stretch that stay at its ends. */
const ENDS = 160;

export type Piece = { text: string; mark: Part['mark'] } | { left: number };

/** One side of a difference: its own words marked, long equal stretches between them left out and counted. */
export function side(parts: readonly Part[], of: 'removed' | 'added', whole: boolean): Piece[] {
  const own = parts.filter((part) => part.mark === 'same' || part.mark === of);
  return own.flatMap((part, at): Piece[] => {
    const { text, mark } = part;
    if (whole || mark !== 'same' || text.length <= 3 * ENDS) return [part];
    const head = at === 0 ? '' : cut(text, 0, ENDS);
    const foot = at === own.length - 1 ? '' : cut(text, text.length - ENDS, text.length);
    const left = text.length - head.length - foot.length;
    return [...(head === '' ? [] : [{ text: head, mark }]), { left }, ...(foot === '' ? [] : [{ text: foot, mark }])];
  });
}

/** Never between the halves of a character. */
function cut(text: string, from: number, to: number): string {
  const isLow = (at: number): boolean => (text.charCodeAt(at) & 0xfc00) === 0xdc00;
  return text.slice(isLow(from) ? from + 1 : from, to < text.length && isLow(to) ? to - 1 : to);
}

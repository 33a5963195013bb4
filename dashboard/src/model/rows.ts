/**
 * A long list of ids in which the place of each is known, and into which can be put anywhere.
 *
 * The rows of a waterfall change in the middle as a run goes on. Blocks of bounded length keep each change and each question at the cost of one block and of the number of
 * blocks, where a plain array would search all of it for every event.
 */

const MOST_IN_A_BLOCK = 512;

export class RowList {
  #blocks: string[][] = [];
  #blockOf = new Map<string, string[]>();

  get size(): number {
    return this.#blockOf.size;
  }

  has(id: string): boolean {
    return this.#blockOf.has(id);
  }

  clear(): void {
    this.#blocks = [];
    this.#blockOf.clear();
  }

  /** The place of a row, from 0; -1 for one that is not in the list. */
  indexOf(id: string): number {
    const wanted = this.#blockOf.get(id);
    if (wanted === undefined) return -1;
    let before = 0;
    for (const block of this.#blocks) {
      if (block === wanted) return before + block.indexOf(id);
      before += block.length;
    }
    return -1;
  }

  at(index: number): string | undefined {
    return this.slice(index, index + 1)[0];
  }

  /** The rows from one place up to before another; what is beyond the list is left out. */
  slice(from: number, to: number): string[] {
    const found: string[] = [];
    let before = 0;
    for (const block of this.#blocks) {
      if (before >= to) break;
      if (before + block.length > from) found.push(...block.slice(Math.max(0, from - before), to - before));
      before += block.length;
    }
    return found;
  }

  /** Puts rows that are not in the list yet before the one at `index`; at its end when there is none. */
  insert(index: number, ids: readonly string[]): void {
    if (ids.length === 0) return;
    let at = 0;
    let within = Math.max(0, index);
    while (at < this.#blocks.length - 1 && within > (this.#blocks[at]?.length ?? 0)) {
      within -= this.#blocks[at]?.length ?? 0;
      at += 1;
    }
    const block = this.#blocks[at];
    if (block !== undefined && block.length + ids.length <= MOST_IN_A_BLOCK) {
      block.splice(within, 0, ...ids);
      for (const id of ids) this.#blockOf.set(id, block);
      return;
    }
    const old = block ?? [];
    const merged = [...old.slice(0, within), ...ids, ...old.slice(within)];
    const parts: string[][] = [];
    // Half full, so that what comes next finds room.
    for (let from = 0; from < merged.length; from += MOST_IN_A_BLOCK / 2)
      parts.push(merged.slice(from, from + MOST_IN_A_BLOCK / 2));
    for (const part of parts) for (const id of part) this.#blockOf.set(id, part);
    this.#blocks = [...this.#blocks.slice(0, at), ...parts, ...this.#blocks.slice(at + 1)];
  }

  /** Takes out so many rows from a place on. */
  remove(index: number, count: number): void {
    let before = 0;
    let changed = false;
    for (const block of this.#blocks) {
      const length = block.length;
      const from = Math.max(0, index - before);
      const to = Math.min(length, index + count - before);
      if (from < to) {
        for (const id of block.splice(from, to - from)) this.#blockOf.delete(id);
        changed ||= block.length === 0;
      }
      before += length;
      if (before >= index + count) break;
    }
    if (changed) this.#blocks = this.#blocks.filter((block) => block.length > 0);
  }
}

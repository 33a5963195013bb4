/**
 * Ids of which only is asked whether they are in it: eight bytes each, whatever their length, where a `Set` keeps every text.
 *
 * What is kept of an id are 64 bits of it. Two of a million ids share them once in thirty million runs; the one that comes second is then taken for known.
 */
export class IdSet {
  #size = 0;
  /** Two numbers an id, at a place that follows from them; nothing is 0, 0. */
  #table = new Uint32Array(128);

  get size(): number {
    return this.#size;
  }

  clear(): void {
    this.#size = 0;
    this.#table = new Uint32Array(128);
  }

  has(id: string): boolean {
    if (this.#size === 0) return false;
    const [low, high] = bits(id);
    return this.#table[this.#placeOf(low, high)] === low;
  }

  add(id: string): void {
    const [low, high] = bits(id);
    if (!this.#put(low, high)) return;
    this.#size += 1;
    if (this.#size * 3 < this.#table.length) return;
    const before = this.#table;
    this.#table = new Uint32Array(before.length * 2);
    for (let at = 0; at < before.length; at += 2) {
      const known = before[at] ?? 0;
      if (known !== 0) this.#put(known, before[at + 1] ?? 0);
    }
  }

  #put(low: number, high: number): boolean {
    const at = this.#placeOf(low, high);
    if (this.#table[at] === low) return false;
    this.#table[at] = low;
    this.#table[at + 1] = high;
    return true;
  }

  /** Where these bits are, or would be: a third is always empty. */
  #placeOf(low: number, high: number): number {
    const mask = this.#table.length - 1;
    let at = (high << 1) & mask;
    while (this.#table[at] !== 0 && (this.#table[at] !== low || this.#table[at + 1] !== high)) at = (at + 2) & mask;
    return at;
  }
}

/** 64 bits of a text as two numbers of which the first is not 0. */
function bits(id: string): [number, number] {
  let low = 0x9e3779b9 ^ id.length;
  let high = 0x7f4a7c15;
  for (let at = 0; at < id.length; at += 1) {
    const code = id.charCodeAt(at);
    low = Math.imul(low ^ code, 0x01000193);
    high = Math.imul((high << 13) | (high >>> 19), 5) + (code ^ low);
  }
  low = mixed(low ^ (high >>> 7));
  return [low === 0 ? 1 : low, mixed(high)];
}

function mixed(value: number): number {
  let bits = Math.imul(value ^ (value >>> 16), 0x7feb352d);
  bits = Math.imul(bits ^ (bits >>> 15), 0x846ca68b);
  return (bits ^ (bits >>> 16)) >>> 0;
}

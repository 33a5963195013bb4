/**
 * Which rows a waterfall has, in which order, and what is inside those that are closed.
 *
 * It follows a run from version to version: an event costs the depth of its span and one block of rows, not the run. It knows nothing of pixels; times are in `timescale.ts`.
 */

import type { Run, Span } from './run';
import { RowList } from './rows';

/** What lies below a span, itself not counted. */
export interface Below {
  readonly spans: number;
  readonly failed: number;
  readonly open: number;
}

export interface Row {
  readonly span: Span;
  /** From 0, of all rows. */
  readonly index: number;
  /** 0 for a root. */
  readonly depth: number;
  /** `null`: nothing is in it. */
  readonly expanded: boolean | null;
  readonly below: Below;
  /** Its place among those beside it, from 1, and how many they are. */
  readonly position: number;
  readonly siblings: number;
  readonly isHit: boolean;
}

/** A span as it was when it was last looked at, and what was counted below it. Spans are never changed, so another object is another state. */
interface Known {
  span: Span;
  spans: number;
  failed: number;
  open: number;
  /** Of its row; 0 for a root. */
  depth: number;
}

/** Something that is counted from a run's spans as they come. */
export interface Picture {
  clear(): void;
  tell(span: Span, before: Span | null): void;
}

const NOTHING_BELOW: Below = { spans: 0, failed: 0, open: 0 };

/** Where most of a run changed at once, as when it is opened, all of it is laid out anew. */
const ANEW_FROM = 4;

export class Waterfall {
  #run: Run | null = null;
  #version = -1;
  #known = new Map<string, Known>();
  #rows = new RowList();
  #closed = new Set<string>();
  #sought = '';
  #hits = new Set<string>();
  #order: ReadonlyMap<string, number> | null = null;
  #failed = new Set<string>();
  #open = new Set<string>();
  /** The rows that stand for steps which are not held. */
  #gone = new Set<string>();
  #end = Number.NEGATIVE_INFINITY;

  /** Follows the run; says whether anything had changed. The pictures that are drawn from its spans are told of each that is new or another than before. */
  update(run: Run, picture?: Picture): boolean {
    if (this.#run?.id === run.id && this.#version === run.version) return false;
    const isOther = this.#run?.id !== run.id;
    this.#run = run;
    this.#version = run.version;
    if (isOther) this.#closed.clear();
    const changed: { span: Span; before: Span | null }[] = [];
    let added = 0;
    for (const span of run.spans.values()) {
      const before = this.#known.get(span.id)?.span ?? null;
      if (before === span) continue;
      if (before === null) added += 1;
      changed.push({ span, before });
    }
    const gone: Known[] = [];
    if (!isOther && this.#known.size + added > run.spans.size)
      for (const [id, known] of this.#known) if (!run.spans.has(id)) gone.push(known);
    if (isOther || gone.length * ANEW_FROM > run.spans.size) {
      picture?.clear();
      for (const span of run.spans.values()) picture?.tell(span, null);
      this.#anew();
      return true;
    }
    for (const { span, before } of changed) picture?.tell(span, before);
    this.#forget(gone);
    if (changed.length > 64 && changed.length * ANEW_FROM > run.spans.size) {
      this.#anew();
      return true;
    }
    const displaced = changed.filter(
      ({ span, before }) => before === null || before.parent !== span.parent || before.start !== span.start,
    );
    for (const { span } of displaced) this.#takeOut(span.id);
    // Parents in a circle, for as long as only a part of a change is noted.
    if (!changed.every(({ span }) => this.#note(span))) {
      this.#anew();
      return true;
    }
    for (const { span } of displaced) this.#putIn(span);
    if (displaced.length > 0) this.#order = null;
    return changed.length > 0 || gone.length > 0;
  }

  get rowCount(): number {
    return this.#rows.size;
  }

  get spanCount(): number {
    let steps = this.#known.size;
    for (const id of this.#gone) steps += stepsOf(this.#known.get(id)?.span) - 1;
    return steps;
  }

  /** How many of them are not held any more: rows stand for them. */
  get goneCount(): number {
    let steps = 0;
    for (const id of this.#gone) steps += stepsOf(this.#known.get(id)?.span);
    return steps;
  }

  /** The last end that is known, in ms since the epoch; `null` while nothing ended. */
  get lastEnd(): number | null {
    return Number.isFinite(this.#end) ? this.#end : null;
  }

  get failedCount(): number {
    let failed = this.#failed.size;
    for (const id of this.#gone) {
      const more = this.#known.get(id)?.span.earlier?.failed ?? 0;
      if (more > 0) failed += more - 1;
    }
    return failed;
  }

  get openCount(): number {
    return this.#open.size;
  }

  get hitCount(): number {
    return this.#hits.size;
  }

  has(id: string): boolean {
    return this.#known.has(id);
  }

  /** The place of a span's row; -1 while it lies in a closed one. */
  indexOf(id: string): number {
    return this.#rows.indexOf(id);
  }

  idAt(index: number): string | null {
    return this.#rows.at(Math.min(Math.max(index, 0), this.#rows.size - 1)) ?? null;
  }

  /** The rows from one place up to before another. */
  slice(from: number, to: number): Row[] {
    const first = Math.max(0, from);
    const found: Row[] = [];
    for (const [offset, id] of this.#rows.slice(first, to).entries()) {
      const row = this.#row(id, first + offset);
      if (row !== null) found.push(row);
    }
    return found;
  }

  isClosed(id: string): boolean {
    return this.#closed.has(id);
  }

  below(id: string): Below {
    const known = this.#known.get(id);
    return known === undefined ? NOTHING_BELOW : { spans: known.spans, failed: known.failed, open: known.open };
  }

  expand(id: string): void {
    if (!this.#closed.delete(id)) return;
    const index = this.#rows.indexOf(id);
    if (index >= 0) this.#insertBelow(id, index);
  }

  collapse(id: string): void {
    if (this.#closed.has(id) || this.#children(id).length === 0) return;
    this.#closed.add(id);
    const index = this.#rows.indexOf(id);
    if (index >= 0) this.#removeRows(index + 1, this.#rowsBelow(index));
  }

  toggle(id: string): void {
    if (this.#closed.has(id)) this.expand(id);
    else this.collapse(id);
  }

  /** Opens a span and all that is in it. */
  expandSubtree(id: string): void {
    for (const each of this.#walk([id], () => true)) this.#closed.delete(each.id);
    const index = this.#rows.indexOf(id);
    if (index < 0) return;
    this.#removeRows(index + 1, this.#rowsBelow(index));
    this.#insertBelow(id, index);
  }

  /** Closes all that is in a span, and the span itself. */
  collapseSubtree(id: string): void {
    const holders = this.#walk([id], () => true).filter((each) => this.#children(each.id).length > 0);
    this.collapse(id);
    for (const each of holders) this.#closed.add(each.id);
  }

  expandAll(): void {
    this.#closed.clear();
    this.#layOut();
  }

  /** Closes everything but the roots, which stay open: what a run did first is still seen. */
  collapseAll(): void {
    for (const [id, known] of this.#known) if (known.span.parent !== null && known.spans > 0) this.#closed.add(id);
    this.#layOut();
  }

  /** Opens whatever hides a span. */
  reveal(id: string): void {
    const above: string[] = [];
    for (let at = this.parentOf(id); at !== null && above.length <= this.#known.size; at = this.parentOf(at))
      above.push(at);
    for (const each of above.reverse()) this.expand(each);
  }

  parentOf(id: string): string | null {
    return this.#known.get(id)?.span.parent ?? null;
  }

  firstChild(id: string): string | null {
    return this.#children(id)[0] ?? null;
  }

  /** Looks for a text in names, agents, models, tools and errors, in whichever case; an empty one ends the search. Says how many have it. */
  search(text: string): number {
    this.#sought = text.trim().toLowerCase();
    this.#hits.clear();
    if (this.#sought !== '') for (const [id, known] of this.#known) if (this.#isSought(known.span)) this.#hits.add(id);
    return this.#hits.size;
  }

  isHit(id: string): boolean {
    return this.#hits.has(id);
  }

  /** The next hit (`by` 1) or the one before (-1), from a span on, around the end; also where it lies in a closed one. `place` is from 1. */
  hitFrom(id: string | null, by: 1 | -1): { id: string; place: number } | null {
    return this.#nextOf(this.#hits, id, by);
  }

  /** The same among failed spans. */
  failureFrom(id: string | null, by: 1 | -1): { id: string; place: number } | null {
    return this.#nextOf(this.#failed, id, by);
  }

  #children(id: string | null): readonly string[] {
    return this.#run?.children.get(id) ?? [];
  }

  #row(id: string, index: number): Row | null {
    const span = this.#run?.spans.get(id);
    if (span === undefined) return null;
    const siblings = this.#children(span.parent);
    const below = this.below(id);
    return {
      span,
      index,
      depth: this.#depthOf(id),
      expanded: below.spans === 0 ? null : !this.#closed.has(id),
      below,
      position: this.#place(siblings, span) + 1,
      siblings: siblings.length,
      isHit: this.#hits.has(id),
    };
  }

  /** Siblings are in the order of their starts, so that a place is found by halves. */
  #place(siblings: readonly string[], span: Span): number {
    let low = 0;
    let high = siblings.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const start = this.#run?.spans.get(siblings[middle] ?? '')?.start ?? 0;
      if (start < span.start) low = middle + 1;
      else high = middle;
    }
    for (let at = low; at < siblings.length && at < low + 64; at += 1) if (siblings[at] === span.id) return at;
    return siblings.indexOf(span.id);
  }

  /** Takes note of a span and tells those above it; false where its parents go round in a circle. */
  #note(span: Span): boolean {
    const old = this.#known.get(span.id);
    const known: Known = {
      span,
      spans: old?.spans ?? 0,
      failed: old?.failed ?? 0,
      open: old?.open ?? 0,
      depth: old?.depth ?? 0,
    };
    const all = (of: Known, by: 1 | -1): Below => ({
      spans: by * (of.spans + stepsOf(of.span)),
      failed: by * (of.failed + isFailed(of.span)),
      open: by * (of.open + isOpen(of.span)),
    });
    let sound = true;
    if (old === undefined) {
      // Those that named it as their parent before it was known.
      for (const child of this.#children(span.id)) {
        const there = this.#known.get(child);
        if (there?.span.parent === span.id) add(known, all(there, 1));
      }
      sound = this.#tell(span.parent, all(known, 1));
    } else if (old.span.parent !== span.parent) {
      sound = this.#tell(old.span.parent, all(old, -1)) && this.#tell(span.parent, all(known, 1));
    } else {
      const failed = isFailed(span) - isFailed(old.span);
      const open = isOpen(span) - isOpen(old.span);
      const spans = stepsOf(span) - stepsOf(old.span);
      if (spans !== 0 || failed !== 0 || open !== 0) sound = this.#tell(span.parent, { spans, failed, open });
    }
    this.#known.set(span.id, known);
    this.#mark(span);
    return sound;
  }

  /** Spans that are not held any more leave their rows, and those above count them no more. */
  #forget(gone: readonly Known[]): void {
    if (gone.length === 0) return;
    for (const { span } of gone) {
      this.#takeOut(span.id);
      this.#tell(span.parent, { spans: -stepsOf(span), failed: -isFailed(span), open: -isOpen(span) });
    }
    for (const { span } of gone) {
      this.#known.delete(span.id);
      for (const set of [this.#failed, this.#open, this.#hits, this.#gone, this.#closed]) set.delete(span.id);
    }
    this.#order = null;
  }

  #tell(parent: string | null, more: Below): boolean {
    let steps = 0;
    for (let at = parent; at !== null; steps += 1) {
      const known = this.#known.get(at);
      if (known === undefined) return true;
      if (steps > this.#known.size) return false;
      add(known, more);
      at = known.span.parent;
    }
    return true;
  }

  #mark(span: Span): void {
    setMembership(this.#failed, span.id, isFailed(span) > 0);
    setMembership(this.#gone, span.id, span.earlier !== null);
    setMembership(this.#open, span.id, isOpen(span) === 1);
    setMembership(this.#hits, span.id, this.#isSought(span));
    if (span.end !== null && span.end > this.#end) this.#end = span.end;
  }

  #isSought(span: Span): boolean {
    return this.#sought !== '' && textOf(span).includes(this.#sought);
  }

  /** Everything from the beginning, in one pass. */
  #anew(): void {
    const run = this.#run;
    this.#known.clear();
    this.#failed.clear();
    this.#open.clear();
    this.#hits.clear();
    this.#gone.clear();
    this.#order = null;
    this.#end = Number.NEGATIVE_INFINITY;
    if (run === null) return;
    const walked = this.#walk(this.#children(null), () => true);
    for (const { id } of walked) {
      const span = run.spans.get(id);
      if (span === undefined) continue;
      this.#known.set(id, { span, spans: 0, failed: 0, open: 0, depth: 0 });
      this.#mark(span);
    }
    for (const { id } of walked.reverse()) {
      const known = this.#known.get(id);
      const above = this.#known.get(known?.span.parent ?? '');
      if (known === undefined || above === undefined) continue;
      add(above, {
        spans: known.spans + stepsOf(known.span),
        failed: known.failed + isFailed(known.span),
        open: known.open + isOpen(known.span),
      });
    }
    for (const id of this.#closed) if (!this.#known.has(id)) this.#closed.delete(id);
    this.#layOut();
  }

  #depthOf(id: string | undefined): number {
    return this.#known.get(id ?? '')?.depth ?? 0;
  }

  #setDepths(walked: readonly { id: string; depth: number }[]): void {
    for (const { id, depth } of walked) {
      const known = this.#known.get(id);
      if (known !== undefined) known.depth = depth;
    }
  }

  #layOut(): void {
    this.#rows.clear();
    const walked = this.#walk(this.#children(null), (id) => !this.#closed.has(id));
    this.#setDepths(walked);
    this.#rows.insert(
      0,
      walked.map(({ id }) => id),
    );
  }

  /** Spans depth first; into those that `enters` lets in. */
  #walk(from: readonly string[], enters: (id: string) => boolean, depth = 0): { id: string; depth: number }[] {
    const found: { id: string; depth: number }[] = [];
    const seen = new Set<string>();
    const stack: { id: string; depth: number }[] = [];
    for (let at = from.length - 1; at >= 0; at -= 1) stack.push({ id: from[at] ?? '', depth });
    for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
      if (seen.has(next.id) || !this.#run?.spans.has(next.id)) continue;
      seen.add(next.id);
      found.push(next);
      if (!enters(next.id)) continue;
      const children = this.#children(next.id);
      for (let at = children.length - 1; at >= 0; at -= 1)
        stack.push({ id: children[at] ?? '', depth: next.depth + 1 });
    }
    return found;
  }

  /** How many rows after this one lie in it. */
  #rowsBelow(index: number): number {
    const id = this.#rows.at(index);
    const depth = this.#depthOf(id);
    let count = 0;
    for (let from = index + 1; from < this.#rows.size; from += 256) {
      const some = this.#rows.slice(from, from + 256);
      const outside = some.findIndex((each) => this.#depthOf(each) <= depth);
      if (outside >= 0) return count + outside;
      count += some.length;
    }
    return count;
  }

  #removeRows(index: number, count: number): void {
    this.#rows.remove(index, count);
  }

  #takeOut(id: string): void {
    const index = this.#rows.indexOf(id);
    if (index >= 0) this.#removeRows(index, 1 + this.#rowsBelow(index));
  }

  #putIn(span: Span): void {
    if (this.#rows.has(span.id)) return;
    const parent = span.parent;
    if (parent !== null && (!this.#rows.has(parent) || this.#closed.has(parent))) return;
    const siblings = this.#children(parent);
    const place = this.#place(siblings, span);
    if (place < 0) return;
    let index = parent === null ? 0 : this.#rows.indexOf(parent) + 1;
    for (let before = place - 1; before >= 0; before -= 1) {
      const sibling = siblings[before];
      if (sibling === undefined || !this.#rows.has(sibling)) continue;
      index = this.#rows.indexOf(this.#lastRowIn(sibling)) + 1;
      break;
    }
    const depth = parent === null ? 0 : this.#depthOf(parent) + 1;
    const walked = this.#walk([span.id], (id) => !this.#closed.has(id), depth).filter(
      (each) => !this.#rows.has(each.id),
    );
    this.#setDepths(walked);
    this.#rows.insert(
      index,
      walked.map((each) => each.id),
    );
  }

  #insertBelow(id: string, index: number): void {
    const depth = this.#depthOf(id) + 1;
    const walked = this.#walk(this.#children(id), (each) => !this.#closed.has(each), depth);
    this.#setDepths(walked);
    this.#rows.insert(
      index + 1,
      walked.map((each) => each.id),
    );
  }

  #lastRowIn(id: string): string {
    let last = id;
    for (let steps = 0; steps <= this.#rows.size; steps += 1) {
      if (this.#closed.has(last)) return last;
      const children = this.#children(last);
      let next: string | undefined;
      for (let at = children.length - 1; at >= 0 && next === undefined; at -= 1) {
        const child = children[at];
        if (child !== undefined && this.#rows.has(child)) next = child;
      }
      if (next === undefined) return last;
      last = next;
    }
    return last;
  }

  #nextOf(among: ReadonlySet<string>, id: string | null, by: 1 | -1): { id: string; place: number } | null {
    if (among.size === 0) return null;
    this.#order ??= new Map(this.#walk(this.#children(null), () => true).map((each, index) => [each.id, index]));
    const order = this.#order;
    const indexOf = (each: string): number => order.get(each) ?? -1;
    const listed = [...among].sort((one, other) => indexOf(one) - indexOf(other));
    const here = id === null ? -1 : indexOf(id);
    const ahead = listed.findIndex((each) => indexOf(each) >= here);
    let place: number;
    if (by === 1) {
      place = here < 0 ? 0 : listed.findIndex((each) => indexOf(each) > here);
      if (place < 0) place = 0;
    } else {
      place = here < 0 || ahead === 0 ? listed.length - 1 : (ahead < 0 ? listed.length : ahead) - 1;
    }
    const found = listed[place];
    return found === undefined ? null : { id: found, place: place + 1 };
  }
}

function isFailed(span: Span): number {
  return span.earlier?.failed ?? (span.state === 'failed' ? 1 : 0);
}

/** How many steps a row stands for. */
function stepsOf(span: Span | undefined): number {
  return span?.earlier?.steps ?? 1;
}

function isOpen(span: Span): number {
  return span.end === null && !span.ghost ? 1 : 0;
}

/** What a search looks in: the beginning of each, for a stranger's text may be megabytes. */
function textOf(span: Span): string {
  const parts = [span.name, span.agent, span.model, span.tool, span.error, span.id];
  return parts
    .map((part) => part?.slice(0, 500) ?? '')
    .join('\n')
    .toLowerCase();
}

function add(to: { spans: number; failed: number; open: number }, more: Below): void {
  to.spans += more.spans;
  to.failed += more.failed;
  to.open += more.open;
}

function setMembership(set: Set<string>, id: string, is: boolean): void {
  if (is) set.add(id);
  else set.delete(id);
}

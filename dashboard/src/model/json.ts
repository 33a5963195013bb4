/** A value as a tree of rows: only what is open is looked at, and of a long list only so many children, so that any value can be shown. */

/** Where a row stands: the keys that lead to it from the value. */
export type Path = readonly (string | number)[];

export interface Row {
  /** A key of its own for lists: the path as a JSON Pointer. */
  id: string;
  path: Path;
  depth: number;
  /** Of an object's field its name, of a list's item its place; `null` of the value itself. */
  key: string | number | null;
  kind: 'object' | 'array' | 'string' | 'number' | 'boolean' | 'null' | 'more';
  value: unknown;
  /** Children in all; 0 of what has none. */
  size: number;
  open: boolean;
  /** Of a text that is JSON itself: it can be opened too. */
  isText: boolean;
  /** Of a row "more": how many children are not shown. */
  hidden: number;
  /** For people who hear the tree: place and number among its siblings, from 1. */
  place: number;
  siblings: number;
}

/** What is open: how many children of each, by the path as a JSON Pointer. */
export type Open = ReadonlyMap<string, number>;

/** Children shown at first, and more with each "more". */
export const CHILDREN = 100;
/** Rows of one tree at most; behind them stands a row "more" without an end. */
export const MOST_ROWS = 5_000;
/** Opened without being asked, while the whole fits. */
const ROWS_AT_FIRST = 24;
/** A text is looked at as JSON up to this length. */
const LONGEST_TEXT = 1_000_000;
/** As deep as a tree is opened. */
const DEEPEST = 64;

export function pointer(path: Path): string {
  return path.map((part) => `/${String(part).replace(/~/gu, '~0').replace(/\//gu, '~1')}`).join('');
}

/** The path as one writes it in a program: `$.a[0]["b c"]`. */
export function expression(path: Path): string {
  return path.reduce<string>((text, part) => {
    if (typeof part === 'number') return `${text}[${String(part)}]`;
    return /^[A-Za-z_$][\w$]*$/u.test(part) ? `${text}.${part}` : `${text}[${JSON.stringify(part)}]`;
  }, '$');
}

/** The text of a value, as it is copied: a text as it stands, everything else as JSON. */
export function copied(value: unknown): string {
  if (typeof value === 'string') return value;
  return JSON.stringify(value, null, 2) ?? String(value);
}

/** A flat structure of a few words as one line of JSON; `null` for what is read better as a tree. */
export function shortJson(value: object): string | null {
  const fields: unknown[] = Object.values(value).slice(0, 5);
  if (count(value) > 4 || fields.some((one) => typeof one === 'object' && one !== null)) return null;
  if (fields.some((one) => typeof one === 'string' && one.length > 60)) return null;
  const text = JSON.stringify(value, null, 1).replace(/\n\s*/gu, ' ');
  return text.length <= 72 ? text : null;
}

/** The structure that a text spells out; `undefined` when it is no object or list in JSON. */
export function structureIn(text: string): unknown {
  if (text.length > LONGEST_TEXT) return undefined;
  const first = /^\s*[[{]/u.exec(text);
  if (first === null || !/[\]}]\s*$/u.test(text)) return undefined;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

export function kindOf(value: unknown): Exclude<Row['kind'], 'more'> {
  if (value === null || value === undefined) return 'null';
  if (Array.isArray(value)) return 'array';
  switch (typeof value) {
    case 'object':
      return 'object';
    case 'number':
    case 'bigint':
      return 'number';
    case 'boolean':
      return 'boolean';
    default:
      return 'string';
  }
}

/** What is open before anybody has opened anything: the outer levels, while they are few rows. */
export function openAtFirst(value: unknown): Map<string, number> {
  const open = new Map<string, number>();
  let level: [Path, unknown][] = [[[], value]];
  let rows = 1;
  for (let depth = 0; depth < 3 && level.length > 0; depth++) {
    const next: [Path, unknown][] = [];
    let more = 0;
    for (const [, one] of level) more += Math.min(count(one), CHILDREN);
    if (depth > 0 && rows + more > ROWS_AT_FIRST) break;
    rows += more;
    for (const [path, one] of level) {
      const size = count(one);
      if (size === 0) continue;
      open.set(pointer(path), CHILDREN);
      for (const [key, child] of children(one, Math.min(size, CHILDREN))) {
        if (count(child) > 0) next.push([[...path, key], child]);
      }
    }
    level = next;
  }
  return open;
}

/** The rows that are to be seen, depth first. Never more than `MOST_ROWS`, however deep or wide the value is. */
export function rows(value: unknown, open: Open): Row[] {
  const shown: Row[] = [];
  interface Level {
    path: Path;
    list: [string | number, unknown][];
    at: number;
    size: number;
    hidden: number;
  }
  const stack: Level[] = [];
  const enter = (path: Path, inner: unknown): void => {
    const most = open.get(pointer(path)) ?? 0;
    const size = count(inner);
    const list = children(inner, Math.min(most, size));
    stack.push({ path, list, at: 0, size, hidden: size - list.length });
  };
  const add = (path: Path, key: Row['key'], one: unknown, place: number, siblings: number): void => {
    const written = typeof one === 'string' ? structureIn(one) : undefined;
    const inner = written ?? one;
    const size = count(inner);
    const id = pointer(path);
    const isOpen = size > 0 && open.has(id) && path.length < DEEPEST;
    shown.push({
      id,
      path,
      depth: path.length,
      key,
      kind: kindOf(one),
      value: one,
      size: path.length < DEEPEST ? size : 0,
      open: isOpen,
      isText: written !== undefined,
      hidden: 0,
      place,
      siblings,
    });
    if (isOpen) enter(path, inner);
  };
  add([], null, value, 1, 1);
  while (stack.length > 0) {
    const level = stack[stack.length - 1];
    if (level === undefined) break;
    const child = level.list[level.at];
    if (child !== undefined && shown.length < MOST_ROWS) {
      level.at += 1;
      add([...level.path, child[0]], child[0], child[1], level.at, level.size);
      continue;
    }
    stack.pop();
    const hidden = level.hidden + level.list.length - level.at;
    if (hidden > 0) {
      shown.push({
        // No pointer begins like this, whatever a field is called.
        id: `more ${pointer(level.path)}`,
        path: level.path,
        depth: level.path.length + 1,
        key: null,
        kind: 'more',
        value: undefined,
        size: 0,
        open: false,
        isText: false,
        hidden,
        place: level.size,
        siblings: level.size,
      });
    }
  }
  return shown;
}

/** Opens or closes a row. */
export function toggled(open: Open, row: Row): Map<string, number> {
  const next = new Map(open);
  if (row.open) next.delete(row.id);
  else if (row.size > 0) next.set(row.id, CHILDREN);
  return next;
}

/** Shows more children of the row that a row "more" belongs to. */
export function extended(open: Open, row: Row): Map<string, number> {
  const next = new Map(open);
  const id = pointer(row.path);
  next.set(id, (next.get(id) ?? 0) + CHILDREN * 5);
  return next;
}

/** What a key does in a tree (WAI-ARIA's pattern): the row that has the focus then, and what is opened or closed. */
export function pressed(key: string, at: number, list: readonly Row[]): { at: number; toggle: boolean } | null {
  const row = list[at];
  if (row === undefined) return null;
  const last = list.length - 1;
  switch (key) {
    case 'ArrowDown':
      return { at: Math.min(at + 1, last), toggle: false };
    case 'ArrowUp':
      return { at: Math.max(at - 1, 0), toggle: false };
    case 'Home':
      return { at: 0, toggle: false };
    case 'End':
      return { at: last, toggle: false };
    case 'ArrowRight':
      if (row.size > 0 && !row.open) return { at, toggle: true };
      return { at: row.open ? Math.min(at + 1, last) : at, toggle: false };
    case 'ArrowLeft': {
      if (row.open) return { at, toggle: true };
      for (let above = at - 1; above >= 0; above--) {
        if ((list[above]?.depth ?? 0) < row.depth) return { at: above, toggle: false };
      }
      return { at, toggle: false };
    }
    case 'Enter':
    case ' ':
      return { at, toggle: true };
    default:
      return null;
  }
}

/** The number of children. */
export function count(value: unknown): number {
  if (Array.isArray(value)) return value.length;
  if (typeof value === 'object' && value !== null) return Object.keys(value).length;
  return 0;
}

function children(value: unknown, most: number): [string | number, unknown][] {
  if (Array.isArray(value)) return (value as unknown[]).slice(0, most).map((child, index) => [index, child]);
  if (typeof value !== 'object' || value === null) return [];
  const fields = value as Record<string, unknown>;
  return Object.keys(fields)
    .slice(0, most)
    .map((key) => [key, fields[key]]);
}

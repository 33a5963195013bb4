// What becomes of dropped files, and where a broken one is broken. No DOM, no fetch.

/** The event of the window by which a button asks for a file to be chosen. */
export const CHOOSE_FILE = 'tailspan:choose-file';
/** Bytes that the server takes of a file. */
export const MOST_BYTES = 64 * 1024 * 1024;
/** Files that one drop may bring. */
export const MOST_FILES = 50;

export interface ImportedTrace {
  id: string;
  accepted: number;
  duplicates: number;
  deleted: boolean;
}

/** What the server says of a file that it does not take. */
export interface Broken {
  message: string;
  line: number | null;
  column: number | null;
  /** The lines around the place, if the file is text. */
  excerpt: Excerpt | null;
}

export type FileState =
  | { phase: 'waiting' }
  | { phase: 'sending' }
  | { phase: 'done'; traces: readonly ImportedTrace[] }
  | { phase: 'failed'; broken: Broken };

export interface Dropped {
  /** Counts the files of this page. */
  key: number;
  name: string;
  bytes: number;
  state: FileState;
}

/** Why a file is not even sent; `null`: it is. */
export function refusal(name: string, bytes: number): string | null {
  if (bytes === 0) return 'the file is empty';
  if (bytes > MOST_BYTES) return `larger than ${MOST_BYTES / 1024 / 1024} MiB: use "tailspan import ${plain(name)}"`;
  return null;
}

function plain(name: string): string {
  return /^[\w.-]+$/.test(name) ? name : 'FILE';
}

/** The answer to a file that was taken; `null` for what is none. */
export function taken(answer: unknown): ImportedTrace[] | null {
  const traces = field(answer, 'traces');
  if (!Array.isArray(traces)) return null;
  return traces.flatMap((trace: unknown) => {
    const id = field(trace, 'trace_id');
    if (typeof id !== 'string') return [];
    return [
      {
        id,
        accepted: numeric(field(trace, 'accepted')),
        duplicates: numeric(field(trace, 'duplicates')),
        deleted: field(trace, 'deleted') === true,
      },
    ];
  });
}

/** The answer to a file that was not taken, with the place in the file's own text. */
export function broken(answer: unknown, status: number, text: string | null): Broken {
  const error = field(answer, 'error');
  const message = field(error, 'message');
  const line = whole(field(error, 'line'));
  const column = whole(field(error, 'column'));
  return {
    message: typeof message === 'string' ? message : `the server answered ${status}`,
    line,
    column,
    excerpt: text === null || line === null ? null : excerpt(text, line, column ?? 1),
  };
}

export interface Excerpt {
  lines: { number: number; text: string; isPlace: boolean }[];
  /** Characters before the place, in its shortened line. */
  before: number;
}

/** Lines above the place, and characters to its left and right. */
const ABOVE = 2;
const AROUND = 48;

/** The place of an error with a little around it; lines and columns count from 1, columns in bytes. `null` when the text has no such line. */
export function excerpt(text: string, line: number, column: number): Excerpt | null {
  let from = 0;
  const starts: number[] = [];
  for (let number = 1; number <= line; number += 1) {
    starts.push(from);
    const next = text.indexOf('\n', from);
    if (number < line && next < 0) return null;
    from = next + 1;
  }
  const at = starts.at(-1) ?? 0;
  const own = text.slice(at, endOf(text, at));
  const characters = charactersIn(own, column - 1);
  const left = Math.max(0, characters - AROUND);
  const lines = starts.slice(-1 - ABOVE, -1).map((start, index, all) => ({
    number: line - all.length + index,
    text: window(text.slice(start, endOf(text, start)), left),
    isPlace: false,
  }));
  lines.push({ number: line, text: window(own, left), isPlace: true });
  return { lines, before: characters - left + (left > 0 ? 1 : 0) };
}

function endOf(text: string, from: number): number {
  const end = text.indexOf('\n', from);
  return Math.min(end < 0 ? text.length : end, from + 1_000_000);
}

function window(line: string, left: number): string {
  const shown = line.slice(left, left + 2 * AROUND).replace(/\r$/, '');
  return `${left > 0 && line.length > left ? '…' : ''}${shown}${line.length > left + 2 * AROUND ? '…' : ''}`;
}

/** How many characters so many bytes of UTF-8 are. */
function charactersIn(line: string, bytes: number): number {
  let at = 0;
  let left = bytes;
  for (const character of line) {
    if (left <= 0) return at;
    const point = character.codePointAt(0) ?? 0;
    left -= point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    at += character.length;
  }
  return at;
}

/** What a drop came to, in a sentence for who cannot see the list. */
export function told(files: readonly Dropped[]): string {
  const of = (phase: FileState['phase']): number => files.filter((file) => file.state.phase === phase).length;
  const left = of('waiting') + of('sending');
  if (left > 0) return `Importing: ${files.length - left} of ${files.length} files done`;
  const runs = files.flatMap((file) => (file.state.phase === 'done' ? file.state.traces : [])).length;
  const failed = of('failed');
  const imported = `${runs} ${runs === 1 ? 'run' : 'runs'} imported`;
  return failed === 0 ? imported : `${imported}, ${failed} ${failed === 1 ? 'file' : 'files'} not taken`;
}

/** The run to go to at once: when all that was dropped is one run. */
export function onlyRun(files: readonly Dropped[]): string | null {
  if (files.some((file) => file.state.phase !== 'done')) return null;
  const ids = new Set(
    files.flatMap((file) =>
      file.state.phase === 'done' ? file.state.traces.map((trace) => (trace.deleted ? '' : trace.id)) : [],
    ),
  );
  const [id] = ids;
  return ids.size === 1 && id !== undefined && id !== '' ? id : null;
}

function field(of: unknown, name: string): unknown {
  return typeof of === 'object' && of !== null ? (of as Record<string, unknown>)[name] : undefined;
}
function numeric(value: unknown): number {
  return typeof value === 'number' ? value : 0;
}
function whole(value: unknown): number | null {
  return typeof value === 'number' && Number.isInteger(value) && value > 0 ? value : null;
}

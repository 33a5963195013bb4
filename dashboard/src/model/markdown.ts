/**
 * Markdown that agents and models wrote, as a small tree of our own kinds: the parser's tokens are read, its HTML is never made.
 * Markup of HTML is text here, images are links, and only links to the web and to mail lead anywhere.
 */
import MarkdownIt from 'markdown-it';

export type Inline =
  | { kind: 'text'; text: string }
  | { kind: 'code'; text: string }
  | { kind: 'break' }
  | { kind: 'strong'; children: Inline[] }
  | { kind: 'em'; children: Inline[] }
  | { kind: 'strike'; children: Inline[] }
  | { kind: 'link'; href: string; isImage: boolean; children: Inline[] };

export type Block =
  | { kind: 'paragraph'; children: Inline[] }
  | { kind: 'heading'; level: number; children: Inline[] }
  | { kind: 'code'; language: string; text: string }
  | { kind: 'rule' }
  | { kind: 'quote'; children: Block[] }
  | { kind: 'item'; children: Block[] }
  | { kind: 'list'; start: number | null; children: Block[] }
  | { kind: 'table'; head: Cell[]; rows: Cell[][] };

export interface Cell {
  align: 'left' | 'center' | 'right' | null;
  children: Inline[];
}

/** A longer text is shown as it stands: nobody formats so much by hand, and it is read faster than it is parsed. */
export const LONGEST = 20_000;
/** Blocks and inlines of one text; what is beyond is left to the plain view. */
const MOST_NODES = 4_000;
/** Structures within structures. */
const DEEPEST = 16;

// Autolinks are what the writer marked as a link, not what looks like one: a bare name with a dot is no address.
const parser = new MarkdownIt('default', {
  html: false,
  linkify: false,
  typographer: false,
  breaks: true,
});
parser.set({ maxNesting: DEEPEST });
// The target is shown as it was written, and asked for below.
parser.validateLink = () => true;
parser.normalizeLink = (url: string) => url;
parser.normalizeLinkText = (url: string) => url;

interface Token {
  type: string;
  tag: string;
  attrs: [string, string][] | null;
  children: Token[] | null;
  content: string;
  info: string;
  nesting: -1 | 0 | 1;
}

/** A text as blocks; `null` when it is too long or too much, and is shown as it stands. */
export function blocks(text: string): Block[] | null {
  if (text.length > LONGEST) return null;
  let tokens: Token[];
  try {
    tokens = parser.parse(text, {}) as Token[];
  } catch {
    // Whatever a stranger's text does to the parser costs its formatting, not the page.
    return null;
  }
  const budget = { left: MOST_NODES };
  const found = readBlocks(tokens, budget);
  return budget.left > 0 ? found : null;
}

/** Whether a text would look other than it stands. Cheap: it decides whether a switch "as written" is offered. */
export function hasMarkup(text: string): boolean {
  return /[*_`#>|[\]~]|^\s*(?:[-+]|\d+[.)])\s/mu.test(text.slice(0, LONGEST));
}

/** Where a link leads, when it is of a kind that may be followed. */
export function target(href: string): string | null {
  const written = href.trim();
  if (!/^(?:https?:\/\/|mailto:)/iu.test(written) || /[\s\p{Cc}]/u.test(written)) return null;
  try {
    const url = new URL(written);
    const isSafe = ['http:', 'https:', 'mailto:'].includes(url.protocol);
    // A name before an @ looks like the host and is not.
    return isSafe && url.username === '' && url.password === '' ? url.href : null;
  } catch {
    return null;
  }
}

interface Budget {
  left: number;
}

type Open = { token: Token; children: Block[]; cells: Cell[]; rows: Cell[][] };

function readBlocks(tokens: readonly Token[], budget: Budget): Block[] {
  const top: Open = { token: none(), children: [], cells: [], rows: [] };
  const stack: Open[] = [top];
  let inline: Inline[] = [];
  for (const token of tokens) {
    if (budget.left <= 0) break;
    const parent = stack[stack.length - 1] ?? top;
    if (token.nesting === 1) {
      stack.push({ token, children: [], cells: [], rows: [] });
      continue;
    }
    if (token.nesting === 0) {
      if (token.type === 'inline') {
        inline = readInline(token.children ?? [], budget);
      } else {
        budget.left -= 1;
        if (token.type === 'fence' || token.type === 'code_block')
          parent.children.push({ kind: 'code', language: language(token.info), text: token.content });
        else if (token.type === 'hr') parent.children.push({ kind: 'rule' });
        else if (token.content !== '')
          parent.children.push({ kind: 'paragraph', children: [{ kind: 'text', text: token.content }] });
      }
      continue;
    }
    const closed = stack.length > 1 ? stack.pop() : undefined;
    const outer = stack[stack.length - 1] ?? top;
    if (closed === undefined) continue;
    budget.left -= 1;
    switch (token.type) {
      case 'paragraph_close':
        outer.children.push({ kind: 'paragraph', children: inline });
        break;
      case 'heading_close':
        outer.children.push({
          kind: 'heading',
          level: Number(token.tag.slice(1)) || 6,
          children: inline,
        });
        break;
      case 'blockquote_close':
        outer.children.push({ kind: 'quote', children: closed.children });
        break;
      case 'list_item_close':
        outer.children.push({ kind: 'item', children: closed.children });
        break;
      case 'bullet_list_close':
        outer.children.push({ kind: 'list', start: null, children: closed.children });
        break;
      case 'ordered_list_close':
        outer.children.push({
          kind: 'list',
          start: Number(attribute(closed.token, 'start') ?? 1) || 0,
          children: closed.children,
        });
        break;
      case 'th_close':
      case 'td_close':
        outer.cells.push({ align: alignment(closed.token), children: inline });
        break;
      case 'tr_close':
        outer.rows.push(closed.cells);
        break;
      case 'thead_close':
      case 'tbody_close':
        outer.rows.push(...closed.rows);
        break;
      case 'table_close': {
        const [head = [], ...rows] = closed.rows;
        outer.children.push({ kind: 'table', head, rows });
        break;
      }
      default:
        // A kind of block that we do not know: what is in it stands on its own.
        outer.children.push(...closed.children);
    }
    inline = [];
  }
  return top.children;
}

function readInline(tokens: readonly Token[], budget: Budget): Inline[] {
  const top: Inline[] = [];
  const stack: { token: Token; children: Inline[] }[] = [{ token: none(), children: top }];
  for (const token of tokens) {
    budget.left -= 1;
    if (budget.left <= 0) break;
    const parent = stack[stack.length - 1]?.children ?? top;
    if (token.nesting === 1) {
      stack.push({ token, children: [] });
    } else if (token.nesting === -1) {
      const closed = stack.length > 1 ? stack.pop() : undefined;
      const outer = stack[stack.length - 1]?.children ?? top;
      if (closed === undefined) continue;
      const { children } = closed;
      if (token.type === 'strong_close') outer.push({ kind: 'strong', children });
      else if (token.type === 'em_close') outer.push({ kind: 'em', children });
      else if (token.type === 's_close') outer.push({ kind: 'strike', children });
      else if (token.type === 'link_close')
        outer.push({ kind: 'link', href: attribute(closed.token, 'href') ?? '', isImage: false, children });
      else outer.push(...children);
    } else if (token.type === 'code_inline') {
      parent.push({ kind: 'code', text: token.content });
    } else if (token.type === 'softbreak' || token.type === 'hardbreak') {
      parent.push({ kind: 'break' });
    } else if (token.type === 'image') {
      const children: Inline[] = token.content === '' ? [] : [{ kind: 'text', text: token.content }];
      parent.push({ kind: 'link', href: attribute(token, 'src') ?? '', isImage: true, children });
    } else if (token.content !== '') {
      parent.push({ kind: 'text', text: token.content });
    }
  }
  return top;
}

function attribute(token: Token, name: string): string | undefined {
  return token.attrs?.find(([key]) => key === name)?.[1];
}

function alignment(token: Token): Cell['align'] {
  const found = /text-align:(left|center|right)/u.exec(attribute(token, 'style') ?? '')?.[1];
  return found === 'left' || found === 'center' || found === 'right' ? found : null;
}

function language(info: string): string {
  return (/^[\w+#.-]{1,24}/u.exec(info.trim()) ?? [''])[0];
}

function none(): Token {
  return { type: '', tag: '', attrs: null, children: null, content: '', info: '', nesting: 0 };
}

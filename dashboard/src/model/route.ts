// What an address means, and which address means it. No name here begins a path of the API.

export const VIEWS = ['waterfall', 'graph', 'conversation', 'findings'] as const;
export type View = (typeof VIEWS)[number];

export type Route =
  | { page: 'runs'; query: URLSearchParams }
  | { page: 'run'; id: string; view: View; span: string | null; query: URLSearchParams }
  | { page: 'session'; session: string; query: URLSearchParams }
  | { page: 'compare'; a: string | null; b: string | null; query: URLSearchParams }
  | { page: 'evaluate'; query: URLSearchParams }
  | { page: 'unknown'; path: string };

/** Reads `location.pathname` and `location.search`. A name that cannot be decoded is an unknown page, an unknown view the first one. */
export function parse(path: string, search: string): Route {
  const query = new URLSearchParams(search);
  const parts = path.split('/').filter((part) => part !== '');
  const [first, second] = parts;
  if (first === undefined) return { page: 'runs', query };
  if (parts.length === 1 && first === 'compare')
    return { page: 'compare', a: query.get('a'), b: query.get('b'), query };
  if (parts.length === 1 && first === 'evaluate') return { page: 'evaluate', query };
  const name = parts.length === 2 && second !== undefined ? decoded(second) : null;
  if (name !== null && first === 'runs') {
    const asked = query.get('view');
    return {
      page: 'run',
      id: name,
      view: VIEWS.find((view) => view === asked) ?? 'waterfall',
      span: query.get('span'),
      query,
    };
  }
  if (name !== null && first === 'conversations') return { page: 'session', session: name, query };
  return { page: 'unknown', path };
}

export function runHref(id: string, view: View = 'waterfall', span: string | null = null): string {
  return withQuery(`/runs/${encodeURIComponent(id)}`, { view: view === 'waterfall' ? null : view, span });
}

export function sessionHref(session: string): string {
  return `/conversations/${encodeURIComponent(session)}`;
}

export function compareHref(a: string | null, b: string | null): string {
  return withQuery('/compare', { a, b });
}

/** The path with those of the parameters that have a value. */
export function withQuery(path: string, parameters: Record<string, string | null>): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) if (value !== null) query.set(name, value);
  const text = query.toString();
  return text === '' ? path : `${path}?${text}`;
}

function decoded(part: string): string | null {
  try {
    return decodeURIComponent(part);
  } catch {
    return null;
  }
}

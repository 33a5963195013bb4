// The filters of the list of runs: what the address says, what the API is asked, and back. Names are the API's where it has one.

export const STATUSES = ['running', 'stalled', 'completed', 'failed', 'lost'] as const;
export type ListedStatus = (typeof STATUSES)[number];

/** How far back: a moving window, so the address stays true tomorrow. */
export const WINDOWS: Readonly<Record<string, { label: string; ms: number }>> = {
  '15m': { label: 'last 15 minutes', ms: 15 * 60_000 },
  '1h': { label: 'last hour', ms: 3_600_000 },
  '24h': { label: 'last day', ms: 24 * 3_600_000 },
  '7d': { label: 'last 7 days', ms: 7 * 24 * 3_600_000 },
};

export interface Filters {
  what: 'runs' | 'sessions';
  status: ListedStatus | null;
  agent: string | null;
  session: string | null;
  user: string | null;
  text: string | null;
  operation: string | null;
  hasError: boolean | null;
  /** As typed: `2s`, `500ms`. */
  minDuration: string | null;
  since: string | null;
}

export const NO_FILTERS: Filters = {
  what: 'runs',
  status: null,
  agent: null,
  session: null,
  user: null,
  text: null,
  operation: null,
  hasError: null,
  minDuration: null,
  since: null,
};

/** Reads the address. What is none of ours, or no value of its kind, is passed over: somebody typed it. */
export function parse(query: URLSearchParams): Filters {
  const text = (name: string): string | null => {
    const value = query.get(name)?.trim() ?? '';
    return value === '' ? null : value.slice(0, 256);
  };
  const status = text('status');
  const since = text('since');
  const hasError = text('has_error');
  const minDuration = text('min_duration');
  return {
    what: query.get('list') === 'sessions' ? 'sessions' : 'runs',
    status: STATUSES.find((one) => one === status) ?? null,
    agent: text('agent_id'),
    session: text('session_id'),
    user: text('user_id'),
    text: text('text'),
    operation: text('operation'),
    hasError: hasError === 'true' ? true : hasError === 'false' ? false : null,
    minDuration: isDuration(minDuration) ? minDuration : null,
    since: since !== null && Object.hasOwn(WINDOWS, since) ? since : null,
  };
}

/** The parameters of the address; `null` takes one out. */
export function toAddress(filters: Filters): Record<string, string | null> {
  return {
    list: filters.what === 'sessions' ? 'sessions' : null,
    status: filters.status,
    agent_id: filters.agent,
    session_id: filters.session,
    user_id: filters.user,
    text: filters.text,
    operation: filters.operation,
    has_error: filters.hasError === null ? null : String(filters.hasError),
    min_duration: filters.minDuration,
    since: filters.since,
  };
}

/** The query of `GET /traces`, without its cursor. */
export function toApi(filters: Filters, limit: number, now: number): URLSearchParams {
  const query = new URLSearchParams();
  const { list: _, since, ...same } = toAddress(filters);
  for (const [name, value] of Object.entries(same)) if (value !== null) query.set(name, value);
  const window = since == null ? undefined : WINDOWS[since];
  if (window !== undefined) query.set('start_time', new Date(now - window.ms).toISOString());
  query.set('limit', String(limit));
  return query;
}

/** Whether anything is filtered at all: an empty list then means something else. */
export function isOpen(filters: Filters): boolean {
  return Object.values(toAddress({ ...filters, what: 'runs' })).every((value) => value === null);
}

/** `2s`, `1.5s`, `500ms`, `3m`, `1h`: what the API takes. */
export function isDuration(text: string | null): boolean {
  return text !== null && /^\d{1,9}(\.\d{1,3})?(ms|s|m|h)$/.test(text);
}

// The thin way to the API: same origin, the token of this tab, errors as one kind.

import type { paths } from './schema';

/** What the server answered instead of what was asked for. `status` 0: it did not answer. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    /** When the server says that coming again later may help: in so many milliseconds. */
    readonly retryAfterMs: number | null = null,
  ) {
    super(message);
  }
}

const TOKEN = 'tailspan.token';

/** Takes `?token=` out of the address, so that it stays in no history, and keeps it for this tab. Called once, before the first request. */
export function keepToken(): void {
  const url = new URL(location.href);
  const token = url.searchParams.get('token');
  if (token === null) return;
  setToken(token);
  url.searchParams.delete('token');
  history.replaceState(history.state, '', url);
}

/** The token that requests of this tab carry, if one was given. */
export function token(): string | null {
  return sessionStorage.getItem(TOKEN);
}

export function setToken(value: string): void {
  if (value === '') sessionStorage.removeItem(TOKEN);
  else sessionStorage.setItem(TOKEN, value);
}

/** The headers of every request. */
export function headers(more: Record<string, string> = {}): Record<string, string> {
  const held = token();
  return held === null ? more : { authorization: `Bearer ${held}`, ...more };
}

/** The JSON that a GET of the path is answered with: `get<'/traces/{trace_id}/summary'>('/traces/x/summary')`. */
export type Answer<P extends keyof paths> = paths[P] extends {
  get: { responses: { 200: { content: { 'application/json': infer Body } } } };
}
  ? Body
  : never;

/**
 * Asks and reads JSON; 204 is `null`.
 *
 * @throws ApiError for every answer that is not 2xx, and with status 0 when there was none. An abort stays an AbortError.
 */
export async function request<T>(path: string, init: RequestInit = {}): Promise<T> {
  const response = await answered(path, init);
  if (response.status === 204) return null as T;
  return (await response.json()) as T;
}

/** GET of a documented path as what the document says it answers; `path` is the one with its parameters filled in. */
export async function get<P extends keyof paths>(path: string, signal?: AbortSignal): Promise<Answer<P>> {
  return request<Answer<P>>(path, signal ? { signal } : {});
}

/** The answer itself, when it is 2xx. Throws as `request` does. */
export async function answered(path: string, init: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, { ...init, headers: headers(init.headers as Record<string, string> | undefined) });
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error;
    throw new ApiError(0, 'unreachable', 'the server does not answer');
  }
  if (response.ok) return response;
  throw await refused(response);
}

/** Our errors are `{error: {code, message}}`, those of `/api` are `{error}` or `{detail}`; anything else is told by its status. */
async function refused(response: Response): Promise<ApiError> {
  const seconds = Number(response.headers.get('retry-after') ?? Number.NaN);
  const retryAfterMs = Number.isFinite(seconds) ? seconds * 1000 : null;
  const said: unknown = await response.json().catch(() => null);
  const field = (of: unknown, name: string): unknown =>
    typeof of === 'object' && of !== null ? (of as Record<string, unknown>)[name] : undefined;
  const error = field(said, 'error');
  const code = field(error, 'code');
  const message = field(error, 'message') ?? error ?? field(said, 'detail');
  return new ApiError(
    response.status,
    typeof code === 'string' ? code : `http_${response.status}`,
    typeof message === 'string' ? message : `the server answered ${response.status}`,
    retryAfterMs,
  );
}

// Numbers and times as people read them. The same everywhere on the page.

const whole = new Intl.NumberFormat('en');
const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });

/** 12,345 */
export function count(value: number): string {
  return whole.format(value);
}

/** 950, 12.3K, 4.5M: for columns. */
export function short(value: number): string {
  return value < 10_000 ? whole.format(value) : compact.format(value);
}

/** 0 ms, 850 ms, 2.5 s, 42 s, 3 min 5 s, 2 h 10 min, 3 d 4 h. Never negative. */
export function duration(milliseconds: number): string {
  const ms = Math.max(0, milliseconds);
  if (ms < 1 && ms > 0) return `${ms.toFixed(2)} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 9_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  const of = (big: number, bigName: string, small: number, smallName: string) =>
    small === 0 ? `${big} ${bigName}` : `${big} ${bigName} ${small} ${smallName}`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return of(minutes, 'min', seconds % 60, 's');
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return of(hours, 'h', minutes % 60, 'min');
  return of(Math.floor(hours / 24), 'd', hours % 24, 'h');
}

/** US dollars: $0, $0.00012, $0.0213, $1.25, $1,250. */
export function dollars(value: number): string {
  if (value === 0) return '$0';
  if (value < 0.01) return `$${Number(value.toPrecision(2)).toFixed(Math.min(8, 1 - Math.floor(Math.log10(value))))}`;
  if (value < 1) return `$${value.toFixed(3)}`;
  return value < 1000 ? `$${value.toFixed(2)}` : `$${whole.format(Math.round(value))}`;
}

/** How long ago: now, 12 s ago, 5 min ago, 3 h ago, then the day. */
export function ago(then: number, now: number): string {
  const seconds = Math.round((now - then) / 1000);
  if (seconds < 5) return 'now';
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 24 * 3600) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(then).toISOString().slice(0, 10);
}

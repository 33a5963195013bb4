/** Numbers as people read them. */

/** How long: `0.4 ms`, `812 ms`, `1.36 s`, `2 m 05 s`, `1 h 02 m`. */
export function duration(ms: number): string {
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${ms.toFixed(0)} ms`;
  if (ms < 9_995) return `${(ms / 1_000).toFixed(2)} s`;
  if (ms < 59_950) return `${(ms / 1_000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1_000);
  const two = (part: number): string => String(part).padStart(2, '0');
  if (seconds < 3_600) return `${String(Math.floor(seconds / 60))} m ${two(seconds % 60)} s`;
  return `${String(Math.floor(seconds / 3_600))} h ${two(Math.floor(seconds / 60) % 60)} m`;
}

/** How many: `950`, `1,250`, `48.2 k`, `1.3 M`. */
export function count(number: number): string {
  if (number < 10_000) return number.toLocaleString('en');
  if (number < 999_950) return `${(number / 1_000).toFixed(1)} k`;
  return `${(number / 1_000_000).toFixed(1)} M`;
}

/** US dollars with the digits that matter: `$1.20`, `$0.013`, `$0.00024`. */
export function usd(dollars: number): string {
  if (dollars === 0) return '$0';
  if (dollars >= 1) return `$${dollars.toFixed(2)}`;
  if (dollars < 0.000_001) return '< $0.000001';
  const digits = Math.min(8, 1 - Math.floor(Math.log10(dollars)));
  return `$${dollars.toFixed(digits)}`;
}

/** A part of a whole: `95 %`, `0.3 %`. */
export function percent(part: number): string {
  const of = part * 100;
  return `${of !== 0 && of < 1 ? of.toFixed(1) : of.toFixed(0)} %`;
}

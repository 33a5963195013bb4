/** What the keys of a treegrid do, as the WAI-ARIA practices have it: https://www.w3.org/WAI/ARIA/apg/patterns/treegrid/. */

import type { Waterfall } from './waterfall';

export type Act =
  { to: string } | { expand: string } | { collapse: string } | { expandAll: true } | { collapseAll: true };

/** `active` is the row that has the focus; `page` how many rows are seen at once. `null`: the key does nothing here. */
export function actOf(waterfall: Waterfall, active: string | null, key: string, page: number): Act | null {
  const to = (id: string | null): Act | null => (id === null ? null : { to: id });
  const index = active === null ? -1 : waterfall.indexOf(active);
  switch (key) {
    case 'ArrowDown':
      return to(waterfall.idAt(index + 1));
    case 'ArrowUp':
      return to(waterfall.idAt(Math.max(0, index - 1)));
    case 'PageDown':
      return to(waterfall.idAt(index + Math.max(1, page - 1)));
    case 'PageUp':
      return to(waterfall.idAt(index - Math.max(1, page - 1)));
    case 'Home':
      return to(waterfall.idAt(0));
    case 'End':
      return to(waterfall.idAt(waterfall.rowCount - 1));
    case '*':
      return { expandAll: true };
    case '_':
      return { collapseAll: true };
  }
  if (active === null || index < 0) return null;
  const holds = waterfall.below(active).spans > 0;
  if (key === 'ArrowRight') {
    if (!holds) return null;
    return waterfall.isClosed(active) ? { expand: active } : to(waterfall.firstChild(active));
  }
  if (key === 'ArrowLeft') {
    if (holds && !waterfall.isClosed(active)) return { collapse: active };
    return to(waterfall.parentOf(active));
  }
  return null;
}

// Where the page is. The only file that touches the browser's history.

import { parse, type Route } from '../model/route';

class Navigation {
  route: Route = $state.raw(parse(location.pathname, location.search));

  constructor() {
    addEventListener('popstate', () => this.#read());
    document.addEventListener('click', (event) => this.#follow(event));
  }

  /** Goes to an address of this page; `replace` leaves no step to go back to (filters, the selected span). */
  go(href: string, { replace = false }: { replace?: boolean } = {}): void {
    if (replace) history.replaceState(null, '', href);
    else history.pushState(null, '', href);
    this.#read();
    if (!replace) scrollTo(0, 0);
  }

  /** Sets parameters of the address that is shown, or takes them out (`null`). */
  set(parameters: Record<string, string | null>, { replace = true }: { replace?: boolean } = {}): void {
    const url = new URL(location.href);
    for (const [name, value] of Object.entries(parameters)) {
      if (value === null || value === '') url.searchParams.delete(name);
      else url.searchParams.set(name, value);
    }
    this.go(url.pathname + url.search, { replace });
  }

  #read(): void {
    this.route = parse(location.pathname, location.search);
  }

  /** Plain clicks on links of this page stay in it; everything else is the browser's. */
  #follow(event: MouseEvent): void {
    if (event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = event.target instanceof Element ? event.target.closest('a') : null;
    if (link === null || link.target !== '' || link.hasAttribute('download') || link.origin !== location.origin) return;
    if (parse(link.pathname, link.search).page === 'unknown') return;
    event.preventDefault();
    this.go(link.pathname + link.search);
  }
}

export const nav = new Navigation();

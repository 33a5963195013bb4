// Light, dark, or as the system has it. Kept for the next visit.

export type Theme = 'system' | 'light' | 'dark';
const KEY = 'tailspan.theme';

class Themes {
  theme: Theme = $state(kept());

  constructor() {
    this.#apply();
  }

  set(theme: Theme): void {
    this.theme = theme;
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // A browser that keeps nothing shows the choice until it is closed.
    }
    this.#apply();
  }

  #apply(): void {
    document.documentElement.dataset.theme = this.theme;
  }
}

function kept(): Theme {
  try {
    const said = localStorage.getItem(KEY);
    return said === 'light' || said === 'dark' ? said : 'system';
  } catch {
    return 'system';
  }
}

export const themes = new Themes();

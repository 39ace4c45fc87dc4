/** Light or dark: as the system says, unless the reader chooses. */

import type { Theme } from './colors';
import { recall, remember } from './remembered';

class Choice {
  chosen = $state<Theme | null>((recall('theme') as Theme | null) ?? null);
  private system = $state<Theme>('light');

  constructor() {
    const dark = matchMedia('(prefers-color-scheme: dark)');
    this.system = dark.matches ? 'dark' : 'light';
    dark.addEventListener('change', () => (this.system = dark.matches ? 'dark' : 'light'));
  }

  get now(): Theme {
    return this.chosen ?? this.system;
  }

  turn(): void {
    this.chosen = this.now === 'dark' ? 'light' : 'dark';
    remember('theme', this.chosen);
  }
}

export const theme = new Choice();

/** The greys of app.css for what is drawn on a canvas, where CSS variables do not work. */

import type { Theme } from './colors';

export const INKS: Record<Theme, { fg: string; dim: string; faint: string; grid: string; bg: string }> = {
  light: { fg: '#1a1c1f', dim: '#565d65', faint: '#b4bbc2', grid: '#e7eaed', bg: '#ffffff' },
  dark: { fg: '#e8eaed', dim: '#a5acb4', faint: '#5d646c', grid: '#2a2e33', bg: '#131518' },
};

import { describe, expect, test } from 'vitest';

import styles from '../app.css?raw';
import { css, ink, level, LEVELS, palette, RUNS, scaleOf, toLab, type Theme } from './colors';

const THEMES: Theme[] = ['light', 'dark'];
type Color = number[]; // r, g, b of 0 to 255

const linear = (c: number) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
const gamma = (c: number) => Math.round(255 * Math.min(1, Math.max(0, c <= 0.0031308 ? 12.92 * c : 1.055 * c ** (1 / 2.4) - 0.055)));
const hex = (color: Color) => `#${color.map((c) => c.toString(16).padStart(2, '0')).join('')}`;
const rgb = (code: string): Color => [1, 3, 5].map((i) => parseInt(code.slice(i, i + 2), 16));

/** Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB. */
const EYES: Record<string, number[]> = {
  protan: [0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216, -0.003882, -0.048116, 1.051998],
  deutan: [0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413, -0.01182, 0.04294, 0.968881],
  tritan: [1.255528, -0.076749, -0.178779, -0.078411, 0.930809, 0.147602, 0.004733, 0.691367, 0.3039],
};
function seen(color: Color, eye: number[]): Color {
  const light = color.map(linear);
  return [0, 3, 6].map((row) => gamma(light.reduce((so, c, i) => so + eye[row + i]! * c, 0)));
}
function apart(one: Color, other: Color): number {
  const [a, b] = [toLab(hex(one)), toLab(hex(other))];
  return 100 * Math.hypot(...a.map((v, i) => v - b[i]!));
}
function contrast(one: Color, other: Color): number {
  const light = [one, other].map((c) => 0.2126 * linear(c[0]!) + 0.7152 * linear(c[1]!) + 0.0722 * linear(c[2]!)).sort((a, b) => b - a);
  return (light[0]! + 0.05) / (light[1]! + 0.05);
}

/** The colour of a place between -1 and 1 along the signed palette, before the square root. */
function signed(theme: Theme, place: number): Color {
  const at = 4 * Math.round((place * 0.5 + 0.5) * (LEVELS - 1));
  return [...palette(theme, true).subarray(at, at + 3)];
}
function variables(theme: Theme): Record<string, string> {
  const blocks = [...styles.matchAll(/:root(\[data-theme='dark'\])?\s*\{([^}]*)\}/g)];
  const body = blocks.find((block) => Boolean(block[1]) === (theme === 'dark'))![2]!;
  return Object.fromEntries([...body.matchAll(/--([a-z]+):\s*(#[0-9a-f]{6})/g)].map((found) => [found[1]!, found[2]!]));
}

describe.each(THEMES)('the colours, %s', (theme) => {
  test.each(Object.keys(EYES))('plus and minus stay apart for %s', (eye) => {
    const distance = (place: number) => apart(seen(signed(theme, place), EYES[eye]!), seen(signed(theme, -place), EYES[eye]!));
    expect(distance(0.3)).toBeGreaterThanOrEqual(14);
    expect(distance(1)).toBeGreaterThanOrEqual(13);
  });
  test.each(Object.keys(EYES))('a little is told from zero for %s', (eye) => {
    for (const place of [0.15, -0.15])
      expect(apart(seen(signed(theme, place), EYES[eye]!), seen(signed(theme, 0), EYES[eye]!))).toBeGreaterThanOrEqual(8.5);
  });
  test('both arms of the signed palette are equally light', () => {
    for (const place of [0.25, 0.5, 0.75])
      expect(Math.abs(toLab(hex(signed(theme, place)))[0] - toLab(hex(signed(theme, -place)))[0])).toBeLessThan(0.12);
  });
  test('text can be read on the page and on cards', () => {
    const of = variables(theme);
    for (const text of ['fg', 'dim', 'pos', 'neg', 'ok', 'bad'])
      for (const ground of ['bg', 'card'])
        expect(contrast(rgb(of[text]!), rgb(of[ground]!)), `--${text} on --${ground}`).toBeGreaterThanOrEqual(4.5);
  });
  test('lines of runs and the focus can be seen', () => {
    const of = variables(theme);
    for (const color of [of.focus!, ...RUNS.map((run) => run.color[theme])])
      expect(contrast(rgb(color), rgb(of.bg!)), color).toBeGreaterThanOrEqual(3);
  });
  test('ink can be read on every shade', () => {
    for (const sign of [true, false])
      for (let i = -20; i <= 20; i++) {
        const shade = css(i / 20, 1, sign, theme).match(/\d+/g)!.map(Number);
        expect(contrast(shade, rgb(ink(i / 20, 1, sign, theme)))).toBeGreaterThanOrEqual(4.5);
      }
  });
});

test('zero is the middle, and no sign moves across it', () => {
  expect(level(0, 3, true)).toBe((LEVELS - 1) / 2);
  expect(level(1e-3, 3, true)).toBeGreaterThan((LEVELS - 1) / 2);
  expect(level(-1e-3, 3, true)).toBeLessThan((LEVELS - 1) / 2);
  expect([level(-9, 3, true), level(9, 3, true), level(9, 3, false), level(-9, 3, false)]).toEqual([0, LEVELS - 1, LEVELS - 1, 0]);
});

test('one outlier does not grey out the rest', () => {
  const values: number[] = Array.from({ length: 1000 }, (_, i) => (i % 2 ? 1 : -1));
  values[500] = 1e6;
  expect(scaleOf(values)).toBe(1);
  expect(scaleOf([])).toBe(1);
  expect(scaleOf([0, 0])).toBe(1);
  expect(scaleOf([NaN, 2, Infinity])).toBe(2);
});

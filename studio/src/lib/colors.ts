/**
 * Colours of numbers. Signed: blue above zero, orange below, neutral at zero, interpolated in OKLab (Ottosson 2020) so
 * that both arms are equally light; they stay apart for colour-blind readers (colors.test.ts). Unsigned: one hue.
 */

export type Theme = 'light' | 'dark';
type Triple = [number, number, number];

const linear = (c: number) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
const gamma = (c: number) => (c <= 0.0031308 ? 12.92 * c : 1.055 * c ** (1 / 2.4) - 0.055);

export function toLab(hex: string): Triple {
  const [r, g, b] = [1, 3, 5].map((i) => linear(parseInt(hex.slice(i, i + 2), 16) / 255)) as Triple;
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
}

function toRgb([light, a, b]: Triple): Triple {
  const l = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (light - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ].map((c) => Math.round(255 * Math.min(1, Math.max(0, gamma(Math.min(1, Math.max(0, c))))))) as Triple;
}

const SIGNED: Record<Theme, string[]> = {
  light: ['#7f3b08', '#e08214', '#f6f5f2', '#3a87c8', '#08306b'],
  dark: ['#ffcb92', '#e08214', '#1d1f23', '#3f8fd6', '#bfe0ff'],
};
const UNSIGNED: Record<Theme, string[]> = {
  light: ['#fbfaf7', '#b8cfe3', '#5b93c4', '#1f5f9e', '#08306b'],
  dark: ['#1d1f23', '#234a70', '#3272ad', '#6aa9e0', '#d6ebff'],
};
export const LEVELS = 511;
const made = new Map<string, Uint8ClampedArray>();

/** RGBA of LEVELS colours, from the lowest value to the highest. */
export function palette(theme: Theme, sign: boolean): Uint8ClampedArray {
  const key = `${theme}${sign}`;
  const known = made.get(key);
  if (known) return known;
  const stops = (sign ? SIGNED : UNSIGNED)[theme].map(toLab);
  const colors = new Uint8ClampedArray(LEVELS * 4);
  for (let i = 0; i < LEVELS; i++) {
    const at = (i / (LEVELS - 1)) * (stops.length - 1);
    const below = Math.min(stops.length - 2, Math.floor(at));
    const share = at - below;
    const mixed = [0, 1, 2].map((c) => stops[below]![c]! * (1 - share) + stops[below + 1]![c]! * share) as Triple;
    colors.set([...toRgb(mixed), 255], i * 4);
  }
  made.set(key, colors);
  return colors;
}

/** Which colour of the palette a value has. A square root spreads small values without moving zero or the sign. */
export function level(value: number, scale: number, sign: boolean): number {
  if (!sign) return Math.round(Math.max(0, Math.min(1, value / scale)) * (LEVELS - 1));
  const share = Math.max(-1, Math.min(1, value / scale));
  return Math.round((Math.sign(share) * Math.sqrt(Math.abs(share)) * 0.5 + 0.5) * (LEVELS - 1));
}

export function css(value: number, scale: number, sign: boolean, theme: Theme): string {
  const colors = palette(theme, sign);
  const at = 4 * level(value, scale, sign);
  return `rgb(${colors[at]} ${colors[at + 1]} ${colors[at + 2]})`;
}

/** Black or white, whichever is read better on the colour of a value. */
export function ink(value: number, scale: number, sign: boolean, theme: Theme): string {
  const colors = palette(theme, sign);
  const at = 4 * level(value, scale, sign);
  const [r, g, b] = [0, 1, 2].map((c) => linear(colors[at + c]! / 255)) as Triple;
  const luminance = 0.2126 * r + 0.7152 * g + 0.0722 * b;
  return 1.05 / (luminance + 0.05) >= (luminance + 0.05) / 0.05 ? '#ffffff' : '#000000';
}

/** Where the colours end: the 99.5th percentile of the sizes, so that one outlier does not grey out the rest. */
export function scaleOf(values: ArrayLike<number>): number {
  const most = 20_000;
  const step = Math.max(1, values.length / most);
  const sizes: number[] = [];
  for (let i = 0; i < values.length; i += step) {
    const value = Math.abs(values[Math.floor(i)]!);
    if (Number.isFinite(value)) sizes.push(value);
  }
  sizes.sort((a, b) => a - b);
  return sizes[Math.floor(0.995 * (sizes.length - 1))] || sizes[sizes.length - 1] || 1;
}

/** Of runs side by side (Okabe and Ito 2008); each has a dash of its own too. */
export const RUNS: { color: Record<Theme, string>; dash: number[] }[] = [
  { color: { light: '#0072b2', dark: '#56b4e9' }, dash: [] },
  { color: { light: '#b34f00', dark: '#e69f00' }, dash: [8, 4] },
  { color: { light: '#00735a', dark: '#2fc79d' }, dash: [2, 3] },
  { color: { light: '#a3427c', dark: '#e08dbb' }, dash: [10, 3, 2, 3] },
  { color: { light: '#5d5d00', dark: '#d9d04a' }, dash: [4, 4] },
  { color: { light: '#7a1f1f', dark: '#ff9d8a' }, dash: [1, 4] },
  { color: { light: '#3d3d8f', dark: '#b3b3ff' }, dash: [12, 4] },
  { color: { light: '#444444', dark: '#cccccc' }, dash: [6, 2, 2, 2] },
];

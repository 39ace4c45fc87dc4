/** Numbers and tokens as readable text. */

const MINUS = '\u2212';

/** Four decimals; an exponent below 0.00005, thousands above. Never a hyphen for a minus. */
export function number(value: number | null | undefined, digits = 4): string {
  if (value === null || value === undefined) return 'not finite';
  if (Number.isNaN(value)) return 'NaN';
  if (!Number.isFinite(value)) return value > 0 ? '∞' : `${MINUS}∞`;
  const size = Math.abs(value);
  let text: string;
  if (size !== 0 && size < 0.5 * 10 ** -digits) {
    const [mantissa = '0', exponent = '0'] = size.toExponential(Math.max(1, digits - 2)).split('e');
    text = `${mantissa}e${exponent.replace('+', '').replace('-', MINUS)}`;
  } else if (size >= 10_000) text = Math.round(size).toLocaleString('en-US');
  else text = size.toFixed(size >= 1000 ? Math.min(1, digits) : digits);
  return value < 0 && Number(text.replace(/,/g, '')) !== 0 ? MINUS + text : text;
}

/** With its sign always there. */
export function signed(value: number | null | undefined, digits = 4): string {
  const text = number(value, digits);
  return value !== null && value !== undefined && value > 0 ? `+${text}` : text;
}

/** Nine significant digits distinguish neighbouring fp32 numbers. */
export function exact(value: number | null): string {
  if (value === null) return 'not finite';
  return String(Number(value.toPrecision(9))).replace(/-/g, MINUS);
}

export function percent(value: number | null | undefined, digits = 1): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return '';
  const share = 100 * value;
  if (share !== 0 && Math.abs(share) < 0.5 * 10 ** -digits) return `<${(10 ** -digits).toFixed(digits)} %`;
  return `${share.toFixed(digits)} %`.replace('-', MINUS);
}

export function count(value: number | null | undefined): string {
  return value === null || value === undefined ? '' : Math.round(value).toLocaleString('en-US');
}

export function large(value: number): string {
  for (const [size, unit] of [[1e12, 'T'], [1e9, 'B'], [1e6, 'M'], [1e3, 'k']] as const)
    if (Math.abs(value) >= size) return `${(value / size).toFixed(Math.abs(value) >= 10 * size ? 0 : 1)}${unit}`;
  return String(Math.round(value));
}

export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return '';
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** A token with its blanks to be seen: ␣ space, ⏎ line, ⇥ tab, · for what has no shape. */
export function token(text: string): string {
  if (text === '') return '∅';
  return text
    .replace(/ /g, '␣')
    .replace(/\n/g, '⏎')
    .replace(/\t/g, '⇥')
    .replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]/g, '·');
}

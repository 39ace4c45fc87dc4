/**
 * The arithmetic of the network again, in double precision, held against what the run computed in single precision.
 *
 * A sum of fp32 terms differs from the exact one by at most a few times 2^-23 of the sum of the terms' sizes. How many
 * times was measured over every weight of opened steps: forward and backward sums 3, gradients and updates 1.1; twice
 * that is allowed, and tests with changed numbers (a weight by 2e-7, a gradient by a thousandth) keep it tight.
 *
 * A run in bf16 rounds what a product gives to 8 bits: each such rounding takes at most 2^-8 of the number.
 */

import type { Formula, TermAnswer, WeightedSum, WeightStepAnswer } from './generated';

export type Dtype = WeightedSum['dtype'];

const EPSILON = 2 ** -23;
const BF16_ROUNDING = 2 ** -8;
export const FORWARD = 6;
export const UPDATE = 3;

export interface Checked {
  here: number; // in double precision, on this page
  run: number; // as the run had it
  allowed: number;
  matches: boolean;
}

/**
 * Hold a number of this page against the run's; `size` is the sum of the sizes of its terms, `rounded` that of the
 * numbers on the way that were rounded to bf16.
 */
export function check(here: number, run: number, size: number, times = FORWARD, rounded = 0): Checked {
  const allowed = times * EPSILON * Math.max(size, Math.abs(run)) + BF16_ROUNDING * rounded;
  return { here, run, allowed, matches: Math.abs(here - run) <= allowed };
}

export function sum(values: Iterable<number>): { total: number; size: number } {
  let total = 0, size = 0;
  for (const value of values) {
    total += value;
    size += Math.abs(value);
  }
  return { total, size };
}

/** What a run in bf16 rounds, where `value` is rounded `times` times; nothing in fp32. */
export function inBf16(dtype: Dtype, value: number | null, times = 1): number {
  return dtype === 'bf16' ? times * Math.abs(value ?? 0) : 0;
}

/** Inputs times weights plus bias. */
export function weightedSum(found: WeightedSum): Checked {
  const { total, size } = sum([...found.terms.map((t) => t.value * t.weight), found.bias ?? 0]);
  return check(total, found.forward_pass, size, FORWARD, inBf16(found.dtype, found.forward_pass));
}

// erf of W. J. Cody (1969) through the series and the continued fraction, to double precision.
export function erf(x: number): number {
  const size = Math.abs(x);
  if (size > 6) return Math.sign(x);
  if (size < 2.5) {
    let term = size, total = size;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(total) && n < 200; n++) {
      term *= (-size * size) / n;
      total += term / (2 * n + 1);
    }
    return (Math.sign(x) * 2 * total) / Math.sqrt(Math.PI);
  }
  let fraction = 0;
  for (let n = 60; n > 0; n--) fraction = n / 2 / (size + fraction);
  return Math.sign(x) * (1 - Math.exp(-size * size) / ((size + fraction) * Math.sqrt(Math.PI)));
}

const logistic = (x: number) => 1 / (1 + Math.exp(-x));
const ROOT = Math.sqrt(2 / Math.PI);

interface Bend {
  value: (x: number) => number;
  slope: (x: number) => number;
}

/** The activation functions by the names of Hugging Face's configurations. */
export const BENDS: Record<string, Bend> = {
  silu: {
    value: (x) => x * logistic(x),
    slope: (x) => logistic(x) * (1 + x * (1 - logistic(x))),
  },
  gelu: {
    value: (x) => (x * (1 + erf(x / Math.SQRT2))) / 2,
    slope: (x) => (1 + erf(x / Math.SQRT2)) / 2 + (x * Math.exp((-x * x) / 2)) / Math.sqrt(2 * Math.PI),
  },
  gelu_new: {
    value: (x) => 0.5 * x * (1 + Math.tanh(ROOT * (x + 0.044715 * x ** 3))),
    slope: (x) => {
      const t = Math.tanh(ROOT * (x + 0.044715 * x ** 3));
      return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * ROOT * (1 + 3 * 0.044715 * x * x);
    },
  },
  relu: { value: (x) => Math.max(0, x), slope: (x) => (x > 0 ? 1 : 0) },
  relu2: { value: (x) => Math.max(0, x) ** 2, slope: (x) => 2 * Math.max(0, x) },
  tanh: { value: Math.tanh, slope: (x) => 1 - Math.tanh(x) ** 2 },
};
BENDS['gelu_pytorch_tanh'] = BENDS['gelu_new']!;

/** A number with the size of what may have been rounded on the way to it; `exact` where a run computes it in doubles. */
export interface Sized {
  value: number;
  size: number;
  exact: boolean;
}

const sized = (value: number, size = Math.abs(value), exact = false): Sized => ({ value, size, exact });
const OPERATIONS: Record<string, (a: number, b: number) => number> = {
  '+': (a, b) => a + b, '-': (a, b) => a - b, '*': (a, b) => a * b, '/': (a, b) => a / b, '^': (a, b) => a ** b, sqrt: Math.sqrt, sign: Math.sign,
};

/**
 * Evaluate a formula of an update rule. A sum that nearly cancels is as uncertain as its addends are large; numbers of
 * the rule itself are exact. The same as `Formula.size` in etude.train.rules.terms.
 */
export function evaluate(formula: Formula, known: Map<string, Sized>): Sized {
  if (typeof formula === 'number') return sized(formula, Math.abs(formula), true);
  if (typeof formula === 'string') return known.get(formula) ?? sized(NaN);
  const [operation, ...parts] = formula;
  const [a, b = sized(NaN)] = parts.map((part) => evaluate(part, known)) as [Sized, Sized?];
  const value = OPERATIONS[operation]?.(a.value, b.value) ?? NaN;
  if (a.exact && (parts.length < 2 || b.exact)) return sized(value, Math.abs(value), true);
  if (operation === '+' || operation === '-') return sized(value, a.size + b.size);
  if (operation === '*') return sized(value, a.size * b.size);
  if (operation === '/') return sized(value, (a.size * b.size) / b.value / b.value);
  if (operation === '^') return sized(value, a.size ** b.value);
  if (operation === 'sqrt') return sized(value, a.value > 0 ? (value * a.size) / a.value : 0);
  // A sign is exact, except where rounding alone decides it: then it is off by two.
  return sized(value, Math.abs(a.value) > UPDATE * EPSILON * a.size ? 1 : 2 / (UPDATE * EPSILON));
}

/** What an update makes of a weight, line by line: the rule's own terms, then what is the same for every rule. */
export interface Update {
  clipped: number;
  terms: { term: TermAnswer; found: Sized }[];
  known: Map<string, Sized>; // values of the names in formulas
  direction: number;
  decay: number;
  move: number; // -lr * direction
  after: Checked;
}

export function update(step: WeightStepAnswer): Update {
  const clipped = times(step.gradient, step.clip_factor);
  const known = new Map([['clipped', sized(clipped)]]);
  for (const term of step.terms) // before the first update every leaf is zero
    for (const name of namesIn(term.formula)) if (name.startsWith('state.')) known.set(name, sized(step.state_before[name.slice(6)] ?? 0));
  const terms = step.terms.map((term) => {
    const found = term.formula === null ? sized(term.value ?? NaN) : evaluate(term.formula, known);
    known.set(term.symbol, found);
    return { term, found };
  });
  const direction = terms.at(-1)?.found ?? sized(NaN);
  const decay = step.applied ? -step.lr * step.weight_decay * step.before : 0;
  const move = step.applied ? -step.lr * direction.value : 0;
  const after = step.before + decay + move;
  const size = Math.abs(step.before) + (step.applied ? step.lr * direction.size : 0);
  return { clipped, terms, known, direction: direction.value, decay, move, after: check(after, step.after, size, UPDATE) };
}

function namesIn(formula: Formula | null): string[] {
  if (typeof formula === 'string') return [formula];
  return Array.isArray(formula) ? formula.slice(1).flatMap((part) => namesIn(part as Formula)) : [];
}

/** A product; what is not finite came as null, which JavaScript would take for zero. */
export const times = (one: number | null, other: number | null) => (one === null || other === null ? NaN : one * other);

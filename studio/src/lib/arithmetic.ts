/**
 * The arithmetic of the network again, in double precision, held against what the run computed in single precision.
 *
 * A sum of fp32 terms differs from the exact one by at most a few times 2^-23 of the sum of the terms' sizes. How many
 * times was measured over every weight of opened steps: forward and backward sums 3, gradients and updates 1.1; twice
 * that is allowed, and tests with changed numbers (a weight by 2e-7, a gradient by a thousandth) keep it tight.
 *
 * A run in bf16 rounds what a product gives to 8 bits: each such rounding takes at most 2^-8 of the number.
 */

import type { Dtype, WeightedSum, WeightStep } from './answers';

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

/** What an update makes of a weight, line by line; AdamW from its own numbers, Muon from its orthogonal direction. */
export interface Update {
  clipped: number;
  m: number;
  v: number;
  mHat: number;
  vHat: number;
  momentum: number;
  ahead: number;
  direction: number;
  decay: number;
  move: number; // -lr * direction
  after: Checked;
}

export function update(step: WeightStep): Update {
  const clipped = step.gradient * step.clip_factor;
  const was = step.state_before;
  const [first, second] = step.betas;
  const count = (was.step ?? 0) + 1;
  const m = first * (was.exp_avg ?? 0) + (1 - first) * clipped;
  const v = second * (was.exp_avg_sq ?? 0) + (1 - second) * clipped ** 2;
  const mHat = m / (1 - first ** count);
  const vHat = v / (1 - second ** count);
  const momentum = step.momentum * (was.momentum_buffer ?? 0) + (1 - step.momentum) * clipped;
  const ahead = step.momentum * momentum + (1 - step.momentum) * clipped;
  const direction = step.orthogonal === null ? mHat / (Math.sqrt(vHat) + step.eps) : step.scale * step.orthogonal;
  const decay = step.applied ? -step.lr * step.weight_decay * step.before : 0;
  const move = step.applied ? -step.lr * direction : 0;
  const after = step.before + decay + move;
  // Where the old mean and the new gradient nearly cancel, m is rounded as numbers of their size are.
  const sizeOfM = (first * Math.abs(was.exp_avg ?? 0) + (1 - first) * Math.abs(clipped)) / (1 - first ** count);
  const sizeOfMove = step.orthogonal === null ? (step.lr * sizeOfM) / (Math.sqrt(vHat) + step.eps) : Math.abs(move);
  return {
    clipped, m, v, mHat, vHat, momentum, ahead, direction, decay, move,
    after: check(after, step.after, Math.abs(step.before) + (step.applied ? sizeOfMove : 0), UPDATE),
  };
}

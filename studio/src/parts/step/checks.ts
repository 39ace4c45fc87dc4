/**
 * What the scenes compute again. `size` is that of what may have been rounded on the way, which for a function of a
 * rounded number is more than its value: exp(x) is off by x times the rounding.
 */

import { BENDS, check, FORWARD, inBf16, sum, times, UPDATE, type Checked, type Dtype } from '../../lib/arithmetic';
import type { StepToken, TokenAnswer, UnitAnswer, WeightStepAnswer } from '../../lib/generated';

/** A number that is not finite comes as null; nothing can be held against it. */
function checked(here: number, run: number | null, size: number, times = FORWARD, rounded = 0): Checked | undefined {
  return run !== null && Number.isFinite(run) && Number.isFinite(here) ? check(here, run, size, times, rounded) : undefined;
}

/**
 * How far single precision strays when it adds up these products one after another. Where a few terms are large and
 * hundreds tiny, as the errors of all tokens of a vocabulary are, each tiny one is cut off and the sum is far from exact.
 */
function strays(products: number[]): number {
  let single = 0, exact = 0;
  for (const product of products) {
    single = Math.fround(single + Math.fround(product));
    exact += product;
  }
  return Math.abs(single - exact);
}

/**
 * The pushes come from the step as it was opened, layer by layer; the gradient from the path that trained. The two round
 * differently what each error is made of, and one that is a small difference of large products, or that follows a slope
 * which is nearly none, is off by more than a rounding of itself. So it is held against all that was rounded for it: over
 * every weight in 25 layers of opened steps, of every family, it was off by 0.9 roundings of that at most in single
 * precision, and 0.6 in bf16. Twice one and one are allowed. In single precision a gradient that is off by a thousandth is
 * seen all the same, except for neurons whose slope is nearly zero.
 */
const GRADIENT = 2;

/** The activation from its sums, as the forward pass had them. */
export function activation(unit: UnitAnswer): { bent: number; here: number; check: Checked | undefined } | null {
  const { gate, up, function: name, activation: made, difference } = unit.arithmetic;
  const bend = BENDS[name];
  if (!bend) return null;
  const bent = bend.value(gate.forward_pass), through = up?.forward_pass ?? 1, here = bent * through;
  const size = Math.abs(through) * Math.max(Math.abs(bent), Math.abs(gate.forward_pass));
  // The value of the function is rounded, and so is its product with what is let through.
  return { bent, here, check: checked(here, made - difference, size, FORWARD, inBf16(gate.dtype, here, up ? 2 : 1)) };
}

export interface ErrorChecks {
  terms: { to: number; weight: number; error: number; term: number }[]; // the largest first
  at_activation: Checked | undefined;
  slope: Checked | undefined;
  at_sum: Checked | undefined;
}

/** `dropsUnits`: whether dropout drops neurons, which rounds their error once more. */
export function errorOf(unit: UnitAnswer, dropsUnits = false): ErrorChecks {
  const { outgoing, arriving, at_activation, slope, at_sum } = unit.error;
  const { gate, up, function: name } = unit.arithmetic;
  const terms = outgoing.map((weight, to) => ({ to, weight, error: arriving[to]!, term: times(weight, arriving[to]!) }));
  const { total, size } = sum(terms.map(({ term }) => term));
  const bend = BENDS[name], through = up?.forward_pass ?? 1;
  const here = bend ? bend.slope(gate.forward_pass) * through : NaN;
  // The slope of tanh, 1 - y^2, is made of its rounded value y.
  const roundedAtSum = inBf16(gate.dtype, at_sum, up ? 2 : 1) + (name === 'tanh' ? inBf16(gate.dtype, at_activation, 2) : 0);
  const slopeSize = Math.abs(through) * Math.max(1, Math.abs(here / (through || 1)));
  return {
    terms: terms.sort((a, b) => Math.abs(b.term) - Math.abs(a.term)),
    at_activation: checked(
      total, at_activation, size + (1.5 * strays(outgoing.map((weight, to) => weight * arriving[to]!))) / (FORWARD * 2 ** -23),
      FORWARD, inBf16(gate.dtype, at_activation, dropsUnits ? 2 : 1), // dropout of the neurons themselves scales the product
    ),
    slope: checked(here, slope, slopeSize),
    at_sum: checked(at_activation * here, at_sum, Math.abs(at_activation) * slopeSize, FORWARD, roundedAtSum),
  };
}

export function gradientOf(unit: UnitAnswer): Checked | undefined {
  const { up, down, rounded, gradient } = unit.weight.pushes;
  return checked(up + down, gradient, rounded, GRADIENT, inBf16(unit.arithmetic.gate.dtype, rounded));
}

export function errorOfGuess({ probability, desired, error }: TokenAnswer['guesses'][number], dtype: Dtype): Checked | undefined {
  const size = desired + probability * (1 - Math.log(Math.max(probability, 1e-300)));
  return checked(probability - desired, error, size, FORWARD, inBf16(dtype, error));
}

export function lossOf(token: TokenAnswer): Checked | undefined {
  const { logsumexp, desired } = token.logits;
  return desired === null ? undefined : checked(logsumexp - desired, token.loss, Math.abs(logsumexp) + Math.abs(desired));
}

/** The mean over what is predicted in a row. */
export function meanOf(tokens: StepToken[], which: 'loss' | 'loss_after', run: number | null): Checked | undefined {
  const { total, size } = sum(tokens.filter((one) => one.desired !== null).map((one) => one[which] ?? NaN));
  const count = tokens.filter((one) => one.desired !== null).length;
  return checked(total / count, run, size / count, UPDATE);
}

/** A number of the optimizer's state after the step, against the page's own. */
export function memory(step: WeightStepAnswer, leaf: string, here: number, size: number): Checked | undefined {
  return checked(here, step.state_after[leaf] ?? null, size, UPDATE);
}

export const isNumber = (value: unknown): value is number => typeof value === 'number' && Number.isFinite(value);

import { describe, expect, test } from 'vitest';

import { update, type Dtype } from '../../lib/arithmetic';
import type { TermAnswer, UnitAnswer, WeightedSum, WeightStepAnswer } from '../../lib/generated';
import { activation, errorOf, errorOfGuess, gradientOf, lossOf, meanOf } from './checks';

const f = Math.fround;

function unit(changes: Partial<UnitAnswer['error']> = {}, pushes: Partial<UnitAnswer['weight']['pushes']> = {}, dtype: Dtype = 'fp32'): UnitAnswer {
  const z = f(0.7), u = f(-1.3);
  const sum = (value: number): WeightedSum => ({ terms: [], bias: null, sum: value, forward_pass: value, dtype });
  const logistic = 1 / (1 + Math.exp(-z)), slope = logistic * (1 + z * (1 - logistic)) * u;
  const outgoing = [0.3, -0.2, 0.1].map(f), arriving = [2e-4, 1e-4, -5e-5].map(f);
  const at_activation = f(outgoing.reduce((so, weight, i) => so + weight * arriving[i]!, 0));
  const activated = z * logistic * u;
  return {
    arithmetic: { gate: sum(z), up: sum(u), function: 'silu', activation: activated, difference: activated - f(activated) },
    error: { outgoing, arriving, at_activation, slope, at_sum: f(at_activation * slope), ...changes },
    weight: { pushes: { up: -0.006, down: 0.0064, up_count: 500, down_count: 524, size: 0.0124, rounded: 0.05, total: 0.0004, gradient: f(0.0004), ...pushes } },
  } as UnitAnswer;
}

describe('the error of a neuron', () => {
  test('of a gated one matches, its activation too', () => {
    const found = errorOf(unit());
    expect([found.at_activation?.matches, found.slope?.matches, found.at_sum?.matches]).toEqual([true, true, true]);
    expect(activation(unit())?.check?.matches).toBe(true);
  });
  test.each(['at_activation', 'slope', 'at_sum'] as const)('%s changed by a thousandth is seen', (name) => {
    const was = unit().error[name];
    expect(errorOf(unit({ [name]: was * 1.001 }))[name]?.matches).toBe(false);
  });
  test('terms that single precision cuts off are no difference, a thousandth still is one', () => {
    const arriving = Array.from({ length: 512 }, (_, i) => (i < 2 ? f(1e-5) : f(3e-13)));
    const outgoing = arriving.map(() => f(0.4));
    const run = arriving.reduce((so, error) => f(so + f(error * f(0.4))), 0);
    const exact = arriving.reduce((so, error) => so + error * f(0.4), 0);
    expect(Math.abs(run - exact)).toBeGreaterThan(12 * 2 ** -23 * exact);
    expect(errorOf(unit({ arriving, outgoing, at_activation: run })).at_activation?.matches).toBe(true);
    expect(errorOf(unit({ arriving, outgoing, at_activation: run * 1.001 })).at_activation?.matches).toBe(false);
  });
});

test('a gradient that is off by a thousandth is seen, though most pushes cancel', () => {
  expect(gradientOf(unit())?.matches).toBe(true);
  expect(gradientOf(unit({}, { gradient: 0.0004 * 1.001 }))?.matches).toBe(false);
});

test('errors of guesses, losses and means', () => {
  const guess = { token: 'a', probability: f(0.04), desired: 1, error: f(f(0.04) - 1) };
  expect(errorOfGuess(guess, 'fp32')?.matches).toBe(true);
  expect(errorOfGuess({ ...guess, error: guess.error * 1.001 }, 'fp32')?.matches).toBe(false);
  const token = { loss: f(3.2257758), logits: { logsumexp: 6.2453203, desired: 3.0195445 } } as Parameters<typeof lossOf>[0];
  expect(lossOf(token)?.matches).toBe(true);
  expect(lossOf({ ...token, loss: 3.2258758 })?.matches).toBe(false);
  const tokens = [1.5, 2.5, 9].map((loss, i) => ({ loss, desired: i < 2 ? 'x' : null, loss_after: null })) as unknown as Parameters<typeof meanOf>[0];
  expect(meanOf(tokens, 'loss', 2)?.matches).toBe(true);
  expect(meanOf(tokens, 'loss', 2.001)?.matches).toBe(false);
});

describe('in bf16', () => {
  const off = (share: number) => {
    const { error } = unit();
    const found = errorOf(unit({ at_activation: error.at_activation * (1 + share), at_sum: error.at_sum * (1 + share) }, {}, 'bf16'));
    return [found.at_activation?.matches, errorOfGuess({ token: 'a', probability: 0.04, desired: 0, error: 0.04 * (1 + share) }, 'bf16')?.matches];
  };
  test('one rounding to 8 bits is allowed', () => expect([off(0.0038), off(-0.0038)]).toEqual([[true, true], [true, true]]));
  test('a hundredth is seen', () => expect([off(0.01), off(-0.01)]).toEqual([[false, false], [false, false]]));
  test('of a gradient, one rounding of all that its errors are made of', () => {
    expect(gradientOf(unit({}, { gradient: 0.0004 + 0.0038 * 0.05 }, 'bf16'))?.matches).toBe(true);
    expect(gradientOf(unit({}, { gradient: 0.0004 + 0.0042 * 0.05 }, 'bf16'))?.matches).toBe(false);
  });
  test('an activation is rounded twice', () => {
    const { here, check } = activation(unit({}, {}, 'bf16'))!;
    expect(check!.allowed / Math.abs(here)).toBeCloseTo(2 / 256, 4);
  });
});

test('nothing is held against what is not finite', () => {
  expect(gradientOf(unit({}, { gradient: null as unknown as number }))).toBeUndefined();
  expect(errorOf(unit({ at_sum: null as unknown as number })).at_sum).toBeUndefined();
});

test('a weight after its update is as exact as its sum, whichever rule moved it', () => {
  const step = {
    before: 0.25, gradient: 0.5, clip_factor: 1, state_before: {}, lr: 0.01, weight_decay: 0, applied: true, after: 0.249,
  } as unknown as WeightStepAnswer;
  const direction = (formula: TermAnswer['formula'], value = NaN): TermAnswer[] => [{ symbol: 'direction', words: '', formula, value, leaf: null, note: '' }];
  const found = (changes: Partial<WeightStepAnswer>) => update({ ...step, terms: direction(null, 0.1), ...changes }).after.matches;
  expect(found({})).toBe(true);
  expect(found({ terms: direction(null, 0.1001) })).toBe(false);
  const ofItself = direction(['/', 'clipped', ['sqrt', ['^', 'clipped', 2]]]);
  expect(found({ terms: ofItself, after: 0.24 })).toBe(true);
  expect(found({ terms: ofItself, after: 0.24 + 2e-7 })).toBe(false);
  expect(found({ applied: false, after: 0.25 + 2e-7 })).toBe(false);
});

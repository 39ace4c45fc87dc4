import { describe, expect, test } from 'vitest';

import { BENDS, check, erf, evaluate, sum, UPDATE, update, weightedSum } from './arithmetic';
import type { TermAnswer, WeightedSum, WeightStepAnswer } from './generated';
import UPDATES from './updates.fixture.json';

/** Numbers between -1 and 1, the same in every run of the tests (Park and Miller 1988). */
function randoms(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 48271) % 2147483647;
    return (2 * state) / 2147483647 - 1;
  };
}
const f = Math.fround;

/** A neuron's sum as fp32 computes it: every product and every partial sum rounded. */
function inSingle(random: () => number, count: number): WeightedSum {
  const terms = Array.from({ length: count }, (_, input) => {
    const value = f(2 * random()), weight = f(0.3 * random());
    return { input, value, weight, term: f(value * weight) };
  });
  const bias = f(0.1 * random() + 0.15);
  const total = terms.reduce((so, { term }) => f(so + term), bias);
  return { terms, bias, sum: total, forward_pass: total, dtype: 'fp32' };
}

const term = (symbol: string, formula: TermAnswer['formula'], leaf: string | null = null, value = NaN): TermAnswer => ({ symbol, words: symbol, formula, value, leaf, note: '' });

/** As etude.train.rules.adamw describes the update after `count` - 1 others. */
function termsOfAdamw(first: number, second: number, eps: number, count: number): TermAnswer[] {
  return [
    term('m', ['+', ['*', first, 'state.exp_avg'], ['*', 1 - first, 'clipped']], 'exp_avg'),
    term('v', ['+', ['*', second, 'state.exp_avg_sq'], ['*', 1 - second, ['^', 'clipped', 2]]], 'exp_avg_sq'),
    term('m_hat', ['/', 'm', ['-', 1, ['^', first, count]]]),
    term('v_hat', ['/', 'v', ['-', 1, ['^', second, count]]]),
    term('direction', ['/', 'm_hat', ['+', ['sqrt', 'v_hat'], eps]]),
  ];
}

function adamw(random: () => number, changes: Partial<WeightStepAnswer> = {}): WeightStepAnswer {
  const before = f(0.1 * random() + 0.2), gradient = f(0.01 * random() + 0.02), clip = f(0.9), [first, second] = [0.9, 0.95];
  const was = { exp_avg: f(0.01 * random()), exp_avg_sq: f(1e-4 + 1e-5 * random()), step: 9 };
  const clipped = f(gradient * clip), lr = 0.003, decay = 0.1, eps = 1e-8;
  const m = f(f(first * was.exp_avg) + f((1 - first) * clipped));
  const v = f(f(second * was.exp_avg_sq) + f((1 - second) * f(clipped * clipped)));
  const root = f(f(Math.sqrt(v)) / f(Math.sqrt(1 - second ** 10)) + eps);
  const after = f(f(before * f(1 - lr * decay)) - f((lr / (1 - first ** 10)) * f(m / root)));
  return {
    step: 10, before, gradient, clip_factor: clip, state_before: was, state_after: { exp_avg: m, exp_avg_sq: v, step: 10 },
    rule: 'adamw', rule_title: 'AdamW', rule_summary: '', lr, weight_decay: decay, betas: [first, second], eps, momentum: 0, orthogonal: null, scale: 1, decay: -lr * decay * before,
    terms: termsOfAdamw(first, second, eps, 10), direction: m / root, update: after - before, after, by_the_rule: after,
    difference: 0, applied: true, proof: '', ...changes,
  };
}

describe('erf', () => {
  test.each([
    [0, 0], [1e-8, 1.1283791670955126e-8], [0.1, 0.1124629160182849], [0.5, 0.5204998778130465], [1, 0.8427007929497149],
    [1.5, 0.9661051464753108], [2, 0.9953222650189527], [2.49, 0.9995707121322661], [2.5, 0.999593047982555],
    [3, 0.9999779095030014], [4, 0.9999999845827421], [5.9, 0.9999999999999999], [7, 1],
  ])('of %f', (x, known) => {
    expect(Math.abs(erf(x) - known)).toBeLessThan(1e-14);
    expect(erf(-x)).toBe(-erf(x));
  });
});

describe('activation functions', () => {
  test.each(Object.keys(BENDS))('the slope of %s is its central difference', (name) => {
    const bend = BENDS[name]!, h = 1e-5;
    for (const x of [-4.3, -1.7, -0.4, -0.01, 0.02, 0.6, 1.3, 2.9, 5.1]) {
      const difference = (bend.value(x + h) - bend.value(x - h)) / (2 * h);
      expect(Math.abs(bend.slope(x) - difference), `at ${x}`).toBeLessThan(1e-9);
    }
  });
  test('pass through what is known of them', () => {
    expect(BENDS.gelu!.value(1)).toBeCloseTo(0.8413447460685429, 14);
    expect(BENDS.gelu_new!.value(1)).toBeCloseTo(0.8411919906082768, 14);
    expect(BENDS.silu!.value(1)).toBeCloseTo(0.7310585786300049, 14);
    expect(BENDS.relu2!.value(3)).toBe(9);
  });
});

describe('a computation in single precision', () => {
  test.each([16, 128, 768, 2048])('sums of %i terms match', (count) => {
    const random = randoms(count);
    for (let i = 0; i < 200; i++) expect(weightedSum(inSingle(random, count)).matches).toBe(true);
  });
  test('updates match', () => {
    const random = randoms(3);
    for (let i = 0; i < 1000; i++) expect(update(adamw(random)).after.matches).toBe(true);
  });
  test('gradients, whose pushes cancel for the most part, match', () => {
    const random = randoms(4);
    for (let i = 0; i < 200; i++) {
      const pushes = Array.from({ length: 2048 }, () => f(0.001 * random()));
      // In blocks, as a matrix product adds.
      let run = 0;
      for (let from = 0; from < pushes.length; from += 64)
        run = f(run + pushes.slice(from, from + 64).reduce((so, push) => f(so + push), 0));
      const { total, size } = sum(pushes);
      expect(check(total, run, size, UPDATE).matches).toBe(true);
    }
  });
});

describe('what was changed is seen', () => {
  test('a weight by 2e-7', () => {
    const random = randoms(5);
    for (let i = 0; i < 500; i++) {
      const step = adamw(random);
      for (const by of [2e-7, -2e-7]) {
        expect(update({ ...step, after: f(step.after + by) }).after.matches).toBe(false);
        expect(update({ ...step, before: f(step.before + by) }).after.matches).toBe(false);
      }
    }
  });
  test('a gradient by a thousandth', () => {
    const random = randoms(6);
    let seen = 0;
    for (let i = 0; i < 200; i++) {
      const { total, size } = sum(Array.from({ length: 2048 }, () => f(0.001 * random())));
      // A sum that is nearly zero has no thousandth to speak of.
      if (Math.abs(total) < 0.005 * size) continue;
      expect(check(total, total * 1.001, size, UPDATE).matches).toBe(false);
      seen++;
    }
    expect(seen).toBeGreaterThan(100);
  });
  test('a sum by 1e-4', () => {
    const random = randoms(7);
    for (const count of [64, 128, 256]) {
      const found = inSingle(random, count);
      expect(weightedSum({ ...found, forward_pass: found.forward_pass + 1e-4 }).matches).toBe(false);
      expect(weightedSum({ ...found, forward_pass: found.forward_pass - 1e-4 }).matches).toBe(false);
    }
  });
  test('a bias by a thousandth', () => {
    const random = randoms(8);
    for (let i = 0; i < 200; i++) {
      const found = inSingle(random, 64), step = adamw(random);
      expect(weightedSum({ ...found, bias: found.bias! * 1.001 }).matches).toBe(false);
      expect(update({ ...step, after: step.after * 1.001 }).after.matches).toBe(false);
    }
  });
  test('what is not a number', () => {
    expect(check(NaN, 1, 1).matches).toBe(false);
    expect(check(1, NaN, 1).matches).toBe(false);
  });
});

describe('an update', () => {
  test('that was skipped moves nothing', () => {
    const found = adamw(randoms(9));
    const left = update({ ...found, applied: false, after: found.before });
    expect([left.decay, left.move, left.after.matches]).toEqual([0, 0, true]);
  });
  test('of Muon follows its orthogonal element and its momentum', () => {
    const terms = (orthogonal: number) => [
      term('momentum', ['+', ['*', 0.95, 'state.momentum_buffer'], ['*', 1 - 0.95, 'clipped']], 'momentum_buffer'),
      term('ahead', ['+', ['*', 0.95, 'momentum'], ['*', 1 - 0.95, 'clipped']]),
      term('orthogonal', null, null, orthogonal),
      term('direction', ['*', 2, 'orthogonal']),
    ];
    const step: WeightStepAnswer = {
      ...adamw(randoms(10)), rule: 'muon', before: 0.25, gradient: 0.5, clip_factor: 0.5, lr: 0.02,
      weight_decay: 0.1, terms: terms(0.125), state_before: { momentum_buffer: 0.1 }, after: 0.25 - 0.0005 - 0.005,
    };
    const found = update(step), values = found.terms.map((one) => one.found.value);
    expect(values[0]).toBeCloseTo(0.95 * 0.1 + 0.05 * 0.25, 15);
    expect(values[1]).toBeCloseTo(0.95 * values[0]! + 0.05 * 0.25, 15);
    expect(found.direction).toBe(0.25);
    expect(found.after.matches).toBe(true);
    expect(update({ ...step, terms: terms(0.126) }).after.matches).toBe(false);
  });
  test('by AdamW, the first one, has the size of the rate whatever the gradient is', () => {
    for (const gradient of [1e-4, 1, -300]) {
      const terms = termsOfAdamw(0.9, 0.95, 1e-8, 1);
      const found = update({ ...adamw(randoms(11)), gradient, clip_factor: 1, state_before: {}, weight_decay: 0, terms });
      expect(Math.abs(found.move)).toBeCloseTo(0.003, 6);
      expect(Math.sign(found.move)).toBe(-Math.sign(gradient));
    }
  });
});

/** Made by Python from its own rules (tests/train/test_rules.py, which also holds the file against them). */
describe.each(UPDATES)('the terms of $rule, update $step', ({ clipped, state, terms }) => {
  const known = new Map([['clipped', { value: clipped, size: Math.abs(clipped), exact: false }]]);
  for (const [leaf, value] of Object.entries(state as unknown as Record<string, number>)) known.set(`state.${leaf}`, { value, size: Math.abs(value), exact: false });
  test.each(terms as unknown as (TermAnswer & { size: number })[])('$symbol is what Python makes of it', ({ symbol, formula, value, size }) => {
    const found = formula === null ? { value, size, exact: false } : evaluate(formula, known);
    expect(Math.abs(found.value - value)).toBeLessThanOrEqual(1e-14 * Math.abs(value));
    expect(Math.abs(found.size - size)).toBeLessThanOrEqual(1e-12 * size);
    known.set(symbol, found);
  });
});

describe('a formula', () => {
  const known = new Map([['x', { value: -0.5, size: 0.75, exact: false }]]);
  test('of the rule’s own numbers is exact', () => expect(evaluate(['-', 1, ['^', 0.9, 2]], known)).toEqual({ value: 1 - 0.9 ** 2, size: 1 - 0.9 ** 2, exact: true }));
  test('with a name that is not known is no number', () => expect(evaluate(['+', 'y', 1], known).value).toBeNaN());
  test('with an operation that is not known is no number', () => expect(evaluate(['max', 'x', 1] as never, known).value).toBeNaN());
  test('carries the sizes of its parts', () => {
    expect(evaluate(['+', 'x', 0.5], known)).toEqual({ value: 0, size: 1.25, exact: false });
    expect(evaluate(['*', 2, 'x'], known).size).toBe(1.5);
    expect(evaluate(['/', 1, 'x'], known).size).toBe(3);
  });
  test('that takes a sign may be off by two where rounding decides it, and nowhere else', () => {
    expect(evaluate(['sign', 'x'], known)).toEqual({ value: -1, size: 1, exact: false });
    const undecided = evaluate(['sign', 'x'], new Map([['x', { value: 1e-9, size: 1, exact: false }]]));
    expect(check(undecided.value, -undecided.value, undecided.size, UPDATE).matches).toBe(true);
  });
});

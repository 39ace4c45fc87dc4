import { describe, expect, test } from 'vitest';

import type { Formula } from '../../lib/generated';
import { written } from './formula';

const known = new Map(Object.entries({ m: 0.25, v: -0.5, clipped: 3 }).map(([name, value]) => [name, { value, size: value, exact: false }]));

describe('a formula with its numbers', () => {
  test.each<[Formula, string]>([
    [['+', ['*', 0.9, 'm'], ['*', 1 - 0.9, 'clipped']], '0.9 × 0.25 + 0.1 × 3'],
    [['*', 0.1, ['^', 'clipped', 2]], '0.1 × (3)²'],
    [['/', 'm', ['-', 1, ['^', 0.9, 10]]], '0.25 ÷ (1 − 0.9^10)'],
    [['/', 'm', ['+', ['sqrt', 'v'], 1e-8]], '0.25 ÷ (√−0.5 + 1e−8)'],
    [['sqrt', ['+', 'm', 1]], '√(0.25 + 1)'],
    [['-', 'm', ['-', 'v', 1]], '0.25 − (−0.5 − 1)'],
    [['*', ['+', 'm', 1], ['/', 'v', 2]], '(0.25 + 1) × −0.5 ÷ 2'],
    [['sign', ['+', 'm', 'v']], 'sign(0.25 + −0.5)'],
    ['nothing', 'NaN'],
  ])('%j', (formula, expected) => expect(written(formula, known)).toBe(expected));
});

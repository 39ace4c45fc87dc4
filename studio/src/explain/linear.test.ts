import { describe, expect, test } from 'vitest';

import { formula } from './linear';
import { frac, hat, root, row, sub, subsup, sup } from './mathml';
import { CHILDREN, elements, fault } from './wellformed';

describe('a formula as text', () => {
  test.each([
    ['M ← μ M + (1 - μ) G', row('M', '←', 'μ', 'M', '+', '(', '1', '−', 'μ', ')', 'G')],
    ['m ← β₁ m', row('m', '←', sub('β', '1'), 'm')],
    ['v + g²', row('v', '+', sup('g', '2'))],
    ['U Vᵀ', row('U', sup('V', 'T'))],
    ['m̂ = m / (1 - β₁ᵗ)', row(hat('m'), '=', frac(row('m'), row('1', '−', subsup('β', '1', 't'))))],
    ['η m̂ / (√v̂ + ε)', row('η', frac(row(hat('m')), row(root(row(hat('v'))), '+', 'ε')))],
    ['sign(a + b)', row('sign', '(', 'a', '+', 'b', ')')],
    ['(a + b) / c', row(frac(row('a', '+', 'b'), row('c')))],
    ['√(a + b) - c', row(root(row('a', '+', 'b')), '−', 'c')],
  ])('%s', (text, expected) => expect(formula(text)).toBe(expected));

  test.each(['(', ')', 'a)', '(a', '√', 'a /', '/', '<b>&', 'x₁₂²', '((a) / (b)', ''])('%s is set without a fault', (text) => {
    const markup = formula(text);
    expect(fault(markup)).toBe('');
    for (const { name, children } of elements(markup)) if (name in CHILDREN) expect(children).toHaveLength(CHILDREN[name]!);
  });
});

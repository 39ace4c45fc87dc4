import { expect, test } from 'vitest';

import { count, duration, exact, large, number, percent, signed, token } from './format';

test.each([
  [0, '0.0000'], [-0, '0.0000'], [1.23456, '1.2346'], [-1.23456, '−1.2346'], [0.00005, '0.0001'], [0.0000482, '4.82e−5'],
  [-0.00000123, '−1.23e−6'], [1234.56, '1234.6'], [-12345.6, '−12,346'], [Infinity, '∞'], [-Infinity, '−∞'], [NaN, 'NaN'],
  [null, 'not finite'], [undefined, 'not finite'],
])('the number %s', (value, text) => expect(number(value)).toBe(text));

test('never a hyphen for a minus', () => {
  for (const value of [-1, -1e-9, -1e9, -0.5, 1e-9, -123.456])
    for (const text of [number(value), signed(value), exact(value), percent(value)]) expect(text).not.toContain('-');
});

test('a sign where it is asked for', () => {
  expect([signed(0.5, 1), signed(-0.5, 1), signed(0, 1), signed(null)]).toEqual(['+0.5', '−0.5', '0.0', 'not finite']);
});

test('nine digits tell one fp32 number from the next', () => {
  for (const value of [0.1, 1, 3.7e-5, 12345.678]) {
    const here = Math.fround(value), next = Math.fround(here * (1 + 2 ** -23));
    expect(next).not.toBe(here);
    expect(exact(here)).not.toBe(exact(next));
  }
  expect(exact(null)).toBe('not finite');
});

test('shares', () => {
  expect([percent(0.5), percent(0.00001), percent(0), percent(-0.25), percent(null)]).toEqual(['50.0 %', '<0.1 %', '0.0 %', '−25.0 %', '']);
});

test('counts and times', () => {
  expect([count(1234567), count(null), large(950), large(1500), large(150_000), large(2.5e9)]).toEqual(['1,234,567', '', '950', '1.5k', '150k', '2.5B']);
  expect([duration(3.21), duration(42), duration(600), duration(9000), duration(null)]).toEqual(['3.2 s', '42 s', '10 min', '2.5 h', '']);
});

test('tokens show what has no shape', () => {
  expect([token(' a\n\t'), token(''), token('\u202eevil\u0007'), token('<b>')]).toEqual(['␣a⏎⇥', '∅', '·evil·', '<b>']);
});

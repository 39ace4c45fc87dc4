import { describe, expect, it } from 'vitest';

import { dots, sameText, type Sized } from './sizes';

const run = (name: string, parameters: number | null, bits: number | null, sources = ['a.txt']): Sized => ({ name, parameters, step: 1, validation: bits, bits, sources });

describe('runs by size', () => {
  it('are drawn from two on, those that have both numbers', () => {
    expect(dots([run('a', 10, 2)])).toBeNull();
    expect(dots([run('a', 10, 2), run('b', null, 1), run('c', 10, null)])).toBeNull();
    const found = dots([run('a', 10, 2), run('b', 1000, 1), run('c', 100, 1.5)])!;
    expect(found.dots.map((dot) => [dot.x, dot.y].map((v) => Number(v.toFixed(6))))).toEqual([[0, 1], [1, 0], [0.5, 0.5]]);
  });
  it('stand in the middle where all are the same', () => {
    expect(dots([run('a', 10, 2), run('b', 10, 2)])!.dots.map((dot) => [dot.x, dot.y])).toEqual([[0.5, 0.5], [0.5, 0.5]]);
  });
  it('are compared on the same text only', () => {
    expect(sameText(run('a', 1, 1), run('b', 1, 1))).toBe(true);
    expect(sameText(run('a', 1, 1), run('b', 1, 1, ['b.txt']))).toBe(false);
    expect(sameText(run('a', 1, 1), run('b', 1, 1, ['a.txt', 'b.txt']))).toBe(false);
  });
});

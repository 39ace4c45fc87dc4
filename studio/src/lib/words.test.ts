import { describe, expect, it } from 'vitest';

import { belowGuessing, busyWords, nextRung, rungsOf, unsure } from './words';

describe('a loss in words', () => {
  it('is the number of equally likely tokens that it stands for', () => {
    expect(unsure(Math.log(9.5))).toBe('as unsure as between 9.5 equally likely tokens');
    expect(unsure(Math.log(2048))).toBe('as unsure as between 2,048 equally likely tokens');
    expect(unsure(0.001)).toBe('almost sure of every token');
    expect(unsure(1e6)).not.toMatch(/∞|NaN|Infinity/);
  });
  it('is held against pure guessing on both sides', () => {
    expect(belowGuessing(2.25, 4.17)).toBe('46 % below pure guessing');
    expect(belowGuessing(4, 4)).toBe('the same as pure guessing');
    expect(belowGuessing(3.988, 4)).toBe('0.3 % below pure guessing');
    expect(belowGuessing(5, 4)).toMatch(/^25 % above pure guessing/);
    expect(belowGuessing(4.04, 4)).toMatch(/^1.0 % above/);
  });
});

describe('the ladder', () => {
  const rung = (order: number, loss: number) => ({ order, name: `${order}`, loss, bits_per_byte: loss / 2 });
  it('has pure guessing once, whether the record names it or not', () => {
    expect(rungsOf([], 4)).toEqual([{ order: 0, name: 'pure guessing', loss: 4, bits: null }]);
    expect(rungsOf([rung(0, 4), rung(1, 3)], 4).map((r) => r.order)).toEqual([0, 1]);
    expect(rungsOf([rung(1, 3)], null).map((r) => r.order)).toEqual([1]);
  });
  it('is in the order of the losses, and pure guessing has its bits by the same measure', () => {
    const rungs = rungsOf([rung(1, 11), rung(2, 5), rung(3, 5.5)], 7);
    expect(rungs.map((r) => r.order)).toEqual([1, 0, 3, 2]);
    expect(rungs[1]!.bits).toBeCloseTo(3.5);
  });
  it('says which one comes next', () => {
    const rungs = rungsOf([rung(1, 3), rung(2, 2)], 4);
    expect(nextRung(rungs, 5)?.order).toBe(0);
    expect(nextRung(rungs, 2.5)?.order).toBe(2);
    expect(nextRung(rungs, 2)?.order).toBe(2);
    expect(nextRung(rungs, 1)).toBeNull();
    expect(nextRung(rungs, NaN)?.order).toBe(0);
  });
});

it('a busy machine is reported with its processors', () => {
  expect(busyWords({ others: 1.94, cores: 2 })).toBe('The machine is busy: other programs use 1.9 of its 2 processors, so this takes longer.');
  expect(busyWords({ others: 2.3, cores: 2 })).toContain('2.0 of its 2');
});

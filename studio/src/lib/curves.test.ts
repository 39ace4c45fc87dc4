import { describe, expect, it } from 'vitest';

import { median, thin, trailingMean, usualDifference } from './curves';

describe('thin', () => {
  it('leaves a short curve as it is', () => {
    expect(thin([1, 2], [3, null])).toEqual({ steps: [1, 2], values: [3, null] });
  });
  it('keeps the first, the last and every peak of a long one', () => {
    const steps = Array.from({ length: 10_000 }, (_, i) => i);
    const values: (number | null)[] = steps.map((i) => Math.sin(i / 50));
    values[7_321] = 99;
    values[5_000] = null;
    const found = thin(steps, values, 500);
    expect(found.steps.length).toBeLessThanOrEqual(500);
    expect(found.steps[0]).toBe(0);
    expect(found.steps.at(-1)).toBe(9_999);
    expect(found.values[found.steps.indexOf(7_321)]).toBe(99);
    expect(found.steps).toEqual([...found.steps].sort((a, b) => a - b));
    expect(new Set(found.steps).size).toBe(found.steps.length);
  });
});

describe('trailingMean', () => {
  it('is over the steps before, of finite numbers only', () => {
    expect(trailingMean([1, 2, 3, 4], [1, 2, 3, 4], 2)).toEqual([1, 1.5, 2.5, 3.5]);
    expect(trailingMean([1, 2, 3], [1, null, 3], 2)).toEqual([1, 1, 3]);
    expect(trailingMean([1], [null], 2)).toEqual([null]);
  });
  it('counts steps, not points: of a long record only some are there', () => {
    expect(trailingMean([10, 20, 30], [1, 2, 3], 20)).toEqual([1, 1.5, 2.5]);
    expect(trailingMean([10, 20, 30], [1, 2, 3], 1)).toEqual([1, 2, 3]);
  });
});

describe('median and usualDifference', () => {
  it('do not mind one that is far off', () => {
    expect(median([1, 100, 2])).toBe(2);
    expect(median([1, 3])).toBe(2);
    expect(median([])).toBeNull();
    expect(usualDifference([1, 2, 3, 4], [0, 1, 2, 60])).toBe(1);
    expect(usualDifference([1], [0])).toBeNull();
    expect(usualDifference([10, 20], [0, 5])).toBe(0.5);
  });
});

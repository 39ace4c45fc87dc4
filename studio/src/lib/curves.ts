/** Columns of numbers made ready to be drawn: fewer points, a mean over several steps, another order of steps. */

type Values = readonly (number | null)[];
export interface Points {
  steps: number[];
  values: (number | null)[];
}

/** A curve is a few hundred pixels wide: more points than this cannot be seen, and eight runs of them are slow. */
const MOST = 3000;

/** The lowest and the highest of each stretch, never one at random; the first and the last are always kept. */
export function thin(steps: readonly number[], values: Values, most = MOST): Points {
  const count = steps.length;
  if (count <= most) return { steps: steps.slice(), values: values.slice() };
  const kept: number[] = [0];
  const stretches = Math.max(1, Math.floor((most - 2) / 2));
  for (let s = 0; s < stretches; s++) {
    const from = 1 + Math.floor((s * (count - 2)) / stretches);
    const to = 1 + Math.floor(((s + 1) * (count - 2)) / stretches);
    let low = -1, high = -1;
    for (let i = from; i < to; i++) {
      const value = values[i];
      if (typeof value !== 'number') continue;
      if (low < 0 || value < values[low]!) low = i;
      if (high < 0 || value > values[high]!) high = i;
    }
    if (low < 0) continue;
    kept.push(Math.min(low, high));
    if (low !== high) kept.push(Math.max(low, high));
  }
  kept.push(count - 1);
  return { steps: kept.map((i) => steps[i]!), values: kept.map((i) => values[i] ?? null) };
}

/** The mean over the last `over` steps up to each step; numbers that are not finite are skipped. */
export function trailingMean(steps: readonly number[], values: Values, over: number): (number | null)[] {
  const means: (number | null)[] = new Array(values.length);
  let sum = 0, count = 0, from = 0;
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    if (typeof value === 'number') {
      sum += value;
      count++;
    }
    for (; steps[from]! <= steps[i]! - over; from++) {
      const gone = values[from];
      if (typeof gone === 'number') {
        sum -= gone;
        count--;
      }
    }
    means[i] = count ? sum / count : null;
  }
  return means;
}

export function median(values: readonly number[]): number | null {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (!sorted.length) return null;
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** The usual difference from one to the next among the newest: of seconds or of tokens, how many a step takes. */
export function usualDifference(steps: readonly number[], values: Values, newest = 50): number | null {
  const found: number[] = [];
  for (let i = Math.max(1, values.length - newest); i < values.length; i++) {
    const [before, now] = [values[i - 1], values[i]];
    const apart = steps[i]! - steps[i - 1]!;
    if (typeof before === 'number' && typeof now === 'number' && apart > 0 && now >= before) found.push((now - before) / apart);
  }
  return median(found);
}

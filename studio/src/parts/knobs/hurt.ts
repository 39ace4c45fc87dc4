/** Which tokens of a text are predicted worse, or better, with knobs turned. */

export interface Hurt {
  position: number; // of the token
  token: string;
  before: number;
  after: number;
  change: number; // of its loss; above zero: predicted worse
}

type Loss = number | null;

/** Change of each token's loss, null where either is not finite; `before[i]` is the loss of token i + 1. */
export function changes(before: readonly Loss[], after: readonly Loss[]): (number | null)[] {
  return before.map((loss, i) => {
    const now = after[i];
    return typeof loss === 'number' && typeof now === 'number' && Number.isFinite(now - loss) ? now - loss : null;
  });
}

/** The `count` tokens whose loss changed most, the largest change first; unchanged ones are skipped. */
export function mostChanged(
  tokens: readonly string[], before: readonly Loss[], after: readonly Loss[], count: number,
): Hurt[] {
  return changes(before, after)
    .map((change, i) => ({
      position: i + 1, token: tokens[i + 1] ?? '', before: before[i] ?? NaN, after: after[i] ?? NaN, change: change ?? 0,
    }))
    .filter(({ change }) => change !== 0)
    .sort((a, b) => Math.abs(b.change) - Math.abs(a.change))
    .slice(0, count);
}

/** Losses as probabilities, and their mean. A loss that is not finite has no probability. */

export type Loss = number | null | undefined;

/** The probability of a token, from its loss in nats. */
export function odds(loss: Loss): number | null {
  return typeof loss === 'number' && Number.isFinite(loss) ? Math.exp(-loss) : null;
}

/** The mean of those that are finite; null without any. */
export function mean(values: readonly Loss[]): number | null {
  const finite = values.filter((v): v is number => typeof v === 'number' && Number.isFinite(v));
  return finite.length ? finite.reduce((total, v) => total + v, 0) / finite.length : null;
}

export interface Guess {
  text: string;
  probability: number;
  desired: boolean;
}

/** The guesses with the desired token among them, at the end if it is not one of the likeliest. */
export function withDesired(
  guesses: readonly { token: number; text: string; probability: number }[],
  desired: { id: number; text: string; loss: Loss } | null,
): Guess[] {
  const found = guesses.map(({ token, text, probability }) => ({ text, probability, desired: token === desired?.id }));
  const share = desired && odds(desired.loss);
  if (desired && share !== null && !found.some((guess) => guess.desired))
    found.push({ text: desired.text, probability: share, desired: true });
  return found;
}

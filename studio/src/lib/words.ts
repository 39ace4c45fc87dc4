/** What a loss means, in words. */

import type { Busy, Rung } from './generated';
import { count, number } from './format';

/** The N of a loss of ln N: as unsure as between N equally likely tokens. */
export function unsureBetween(loss: number): number {
  return Math.exp(loss);
}

export function unsure(loss: number): string {
  const many = unsureBetween(loss);
  if (!Number.isFinite(many)) return 'more unsure than between any number of equally likely tokens';
  if (many < 1.05) return 'almost sure of every token';
  return `as unsure as between ${many < 100 ? number(many, 1) : count(Math.round(many))} equally likely tokens`;
}

export function belowGuessing(loss: number, guessing: number): string {
  const share = (1 - loss / guessing) * 100;
  if (share >= 0.05) return `${share.toFixed(share < 10 ? 1 : 0)} % below pure guessing`;
  return share <= -0.05 ? `${(-share).toFixed(share > -10 ? 1 : 0)} % above pure guessing: worse than knowing nothing` : 'the same as pure guessing';
}

export interface Level {
  order: number;
  name: string;
  loss: number; // nats per token
  bits: number | null; // per byte
}

/**
 * The ladder with pure guessing in it, the weakest first. By loss, not by order: counts of bytes may be worse than
 * guessing among tokens, and on a small text a higher order may be worse than a lower one.
 */
export function rungsOf(ladder: readonly Rung[], guessing: number | null): Level[] {
  const rungs = ladder.filter((rung) => Number.isFinite(rung.loss)).map(({ order, name, loss, bits_per_byte }): Level => ({ order, name, loss, bits: bits_per_byte }));
  if (guessing !== null && !rungs.some((rung) => rung.order === 0)) {
    const known = rungs.find((rung) => rung.loss > 0 && rung.bits !== null);
    rungs.push({ order: 0, name: 'pure guessing', loss: guessing, bits: known ? (guessing * known.bits!) / known.loss : null });
  }
  return rungs.sort((a, b) => b.loss - a.loss);
}

/** The weakest rung that the loss does not beat yet. */
export function nextRung(rungs: readonly Level[], loss: number): Level | null {
  return rungs.find((rung) => !(loss < rung.loss)) ?? null;
}

/** Why an answer takes long. */
export function busyWords({ others, cores }: Busy['busy']): string {
  return `The machine is busy: other programs use ${number(Math.min(others, cores), 1)} of its ${cores} processors, so this takes longer.`;
}

const ROUNDING = 1e-4; // nats

/** What became of chosen and rejected answers, by the changes of their log-probabilities. */
export function fate(chosen: number, rejected: number): string {
  const words = [chosen, rejected].map((change) => (change > ROUNDING ? 'rose' : change < -ROUNDING ? 'fell' : 'stayed'));
  return words[0] === words[1] ? `Both ${words[0]}.` : `The chosen answers ${words[0]}, the rejected ones ${words[1]}.`;
}

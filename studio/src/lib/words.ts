/** What a loss means, in words. */

import type { Rung } from './contract';
import { number } from './format';

/** A loss of ln N is that of somebody who is unsure between N tokens and thinks each as likely as the others. */
export function unsureBetween(loss: number): number {
  return Math.exp(loss);
}

export function unsure(loss: number): string {
  const many = unsureBetween(loss);
  if (!Number.isFinite(many)) return 'more unsure than any number of equally likely tokens would make it';
  if (many < 1.05) return 'almost sure of every token';
  return `as unsure as between ${number(many, many < 100 ? 1 : 0)} equally likely tokens`;
}

export function belowGuessing(loss: number, guessing: number): string {
  const share = (1 - loss / guessing) * 100;
  if (share >= 0.05) return `${share.toFixed(share < 10 ? 1 : 0)} % below pure guessing`;
  return share <= -0.05 ? `${(-share).toFixed(share > -10 ? 1 : 0)} % above pure guessing: worse than not knowing anything` : 'the same as pure guessing';
}

/** The ladder as lines of nats a token; pure guessing is known of a run before its ladder is. */
export function rungsOf(ladder: readonly Rung[], guessing: number | null): { order: number; name: string; loss: number; bits: number | null }[] {
  const rungs = ladder.filter((rung) => Number.isFinite(rung.loss)).map(({ order, name, loss, bits_per_byte }) => ({ order, name, loss, bits: bits_per_byte as number | null }));
  if (guessing !== null && !rungs.some((rung) => rung.order === 0)) rungs.unshift({ order: 0, name: 'pure guessing', loss: guessing, bits: null });
  return rungs;
}

/**
 * The highest rung such that the loss is below it and all before it. On a small text a higher order can be worse than
 * a lower one: then it is passed together with the better one, as the trainer counts it.
 */
export function passed<R extends { loss: number }>(rungs: readonly R[], loss: number): R | null {
  let highest: R | null = null;
  for (const rung of rungs) {
    if (!(loss < rung.loss)) break;
    highest = rung;
  }
  return highest;
}

/** Warnings that follow from a run's record, in words. */

import type { MetricRow } from './generated';
import { count, number } from './format';

export interface Alert {
  kind: 'not finite' | 'skipped' | 'spike' | 'rising' | 'memory';
  text: string;
  steps: number[]; // to look at
}

interface Series {
  steps: readonly number[];
  values: readonly (number | null)[];
}

const LISTED = 3; // steps that are named; there may be thousands
const EVALUATIONS = 3; // above the lowest before it is called rising
const CLEARLY = 1.01; // by how much, since every measurement differs a little

export interface Rising {
  from: number;
  lowest: number;
  to: number;
  now: number;
}

function finite({ steps, values }: Series): { step: number; value: number }[] {
  return values.flatMap((value, i) => (typeof value === 'number' ? [{ step: steps[i]!, value }] : []));
}

/** Validation loss has clearly been above its lowest for a while, and training loss fell: the model memorises. */
export function rising(validation: Series, training: Series): Rising | null {
  const scores = finite(validation);
  if (!scores.length) return null;
  const at = scores.reduce((best, score, i) => (score.value < scores[best]!.value ? i : best), 0);
  const lowest = scores[at]!, now = scores[scores.length - 1]!;
  if (scores.length - 1 - at < EVALUATIONS || now.value <= lowest.value * CLEARLY) return null;
  const losses = finite(training);
  const meanBefore = (step: number) => {
    const last = losses.filter((loss) => loss.step <= step).slice(-20);
    return last.length ? last.reduce((sum, loss) => sum + loss.value, 0) / last.length : NaN;
  };
  return meanBefore(now.step) < meanBefore(lowest.step) ? { from: lowest.step, lowest: lowest.value, to: now.step, now: now.value } : null;
}

const named = (steps: readonly number[]) =>
  `${steps.length === 1 ? 'step' : 'steps'} ${steps.slice(-LISTED).map((step) => count(step)).join(', ')}`;
const newest = (steps: readonly number[]) => (steps.length > LISTED ? `, the newest at ${named(steps)}` : ` at ${named(steps)}`);

export function alerts(events: readonly MetricRow[], loss: Series, gradNorm: Series, validation: Series): Alert[] {
  const found: Alert[] = [];
  const steps = (event: string) => events.filter((row) => row.event === event).map((row) => row.step);

  const skipped = steps('left_out');
  if (skipped.length)
    found.push({
      kind: 'skipped',
      text: `The update of ${skipped.length === 1 ? 'one step' : `${count(skipped.length)} steps`} was skipped because a number was not finite${newest(skipped)}. These steps did not change the weights.`,
      steps: skipped.slice(-LISTED),
    });
  const known = new Set(skipped);
  const broken = [...new Set([...missing(loss), ...missing(gradNorm), ...missing(validation)])].filter((step) => !known.has(step)).sort((a, b) => a - b);
  if (broken.length)
    found.push({
      kind: 'not finite',
      text: `A loss or the size of the gradient was not a finite number${newest(broken)}. The curves have gaps at these steps.`,
      steps: broken.slice(-LISTED),
    });
  const spikes = events.filter((row) => row.event === 'spike');
  const last = spikes[spikes.length - 1];
  if (last) {
    const size = typeof last.loss === 'number' && typeof last.usual === 'number' ? `: ${number(last.loss, 3)}, where ${number(last.usual, 3)} was usual` : '';
    found.push({
      kind: 'spike',
      text: spikes.length === 1
        ? `The loss jumped at step ${count(last.step)}${size}. A single jump often comes from an unusual piece of text.`
        : `The loss jumped in ${count(spikes.length)} steps, last at step ${count(last.step)}${size}. If jumps become frequent, a lower learning rate usually helps.`,
      steps: spikes.slice(-LISTED).map((row) => row.step),
    });
  }
  const up = rising(validation, loss);
  if (up)
    found.push({
      kind: 'rising',
      text: `Validation loss has been above its lowest for ${count(up.to - up.from)} steps (${number(up.lowest, 3)} at step ${count(up.from)}, now ${number(up.now, 3)}) while training loss fell: the model starts to memorise its text. More text or fewer steps usually help.`,
      steps: [up.from],
    });
  const smaller = steps('micro_batch');
  if (smaller.length)
    found.push({
      kind: 'memory',
      text: `A step did not fit into memory${newest(smaller)}. Since then each step is computed in smaller pieces, a little slower.`,
      steps: [],
    });
  return found;
}

function missing({ steps, values }: Series): number[] {
  return steps.filter((_, i) => values[i] === null);
}

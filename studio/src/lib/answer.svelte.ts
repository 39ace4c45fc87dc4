/**
 * The answer to a question, as a state: asked again when the question changes, the old request dropped.
 *
 *   const step = answerTo<StepAnswer>(() => ({ run, look: 'step', step, row }));
 *   {#if step.value} ... {:else} <Notice of={step} /> {/if}
 */

import type { Progress, Question } from './contract';
import { ask } from './server';

const KEPT = 60;
const known = new Map<string, unknown>(); // answers never change: a step has been made

export class Asked<T> {
  value = $state.raw<T | null>(null);
  error = $state('');
  progress = $state.raw<Progress['progress'] | null>(null);
  busy = $state(false);
}

/** Call it while a component is made. `question` gives null when there is nothing to ask. */
export function answerTo<T>(question: () => Question | null): Asked<T> {
  const asked = new Asked<T>();
  $effect(() => {
    const wanted = question();
    if (wanted === null) {
      asked.value = null;
      return;
    }
    const key = JSON.stringify(wanted);
    asked.error = '';
    if (known.has(key)) {
      asked.value = known.get(key) as T;
      asked.busy = false;
      return;
    }
    const stop = new AbortController();
    asked.busy = true;
    asked.progress = null;
    // A moment's rest, so that somebody who moves along the time bar asks for the last place only.
    const timer = setTimeout(() => {
      ask<T>(wanted, { progress: (progress) => (asked.progress = progress) }, stop.signal)
        .then((value) => {
          known.set(key, value);
          if (known.size > KEPT) known.delete(known.keys().next().value as string);
          asked.value = value;
        })
        .catch((error: unknown) => {
          if (stop.signal.aborted) return;
          asked.value = null;
          asked.error = error instanceof Error ? error.message : String(error);
        })
        .finally(() => {
          if (!stop.signal.aborted) asked.busy = false;
        });
    }, 120);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  });
  return asked;
}

export function forgetAnswers(): void {
  known.clear();
}

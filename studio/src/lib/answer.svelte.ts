/**
 * The answer to a question as reactive state: a changed question is asked anew, and the old request is dropped.
 *
 *   const step = answerTo(() => ({ run, look: 'step', step, row }));
 *   {#if step.value} ... {:else} <Notice of={step} /> {/if}
 */

import { untrack } from 'svelte';

import type { Answers, Busy, Look, Progress, Question } from './generated';
import { ask } from './server';

const KEPT = 60;
const known = new Map<string, unknown>(); // answers do not change: a step has been made
const history = $state({ rewound: 0 });

/** The run was resumed from an earlier step: its later steps are others now, and so are the answers about them. */
export function forgetAnswers(): void {
  known.clear();
  untrack(() => history.rewound++);
}

export class AnswerState<T> {
  value = $state.raw<T | null>(null);
  error = $state('');
  progress = $state.raw<Progress['progress'] | null>(null);
  busy = $state(false);
  /** Other programs hold the processors while it is computed. */
  machine = $state.raw<Busy['busy'] | null>(null);
  /** Counts the retries after an error. */
  tries = $state(0);
}

/** How many questions wait for their answers: what is on the page may be of another selection meanwhile. */
export const waiting = $state({ count: 0 });

/** Call it while a component is made. `question` gives null when there is nothing to ask. */
export function answerTo<L extends Look>(question: () => (Question & { look: L }) | null): AnswerState<Answers[L]> {
  const answer = new AnswerState<Answers[L]>();
  // Compared as text: a question reads what is polled each second, and the same one again must not drop a replay.
  const key = $derived(JSON.stringify(question()));
  $effect(() => {
    const wanted = JSON.parse(key) as (Question & { look: L }) | null;
    void answer.tries;
    void history.rewound;
    answer.error = '';
    if (wanted === null || known.has(key)) {
      answer.value = wanted === null ? null : (known.get(key) as Answers[L]);
      answer.busy = false;
      return;
    }
    const stop = new AbortController();
    answer.busy = true;
    answer.progress = null;
    answer.machine = null;
    untrack(() => waiting.count++);
    let waited = true;
    const done = () => {
      if (waited) untrack(() => waiting.count--);
      waited = false;
    };
    // A short delay, so that a move along the time bar asks only for its last place.
    const timer = setTimeout(() => {
      ask(wanted, { progress: (progress) => (answer.progress = progress), busy: (busy) => (answer.machine = busy) }, stop.signal)
        .then((value) => {
          known.set(key, value);
          if (known.size > KEPT) known.delete(known.keys().next().value as string);
          if (!stop.signal.aborted) answer.value = value;
        })
        .catch((error: unknown) => {
          if (stop.signal.aborted) return;
          answer.value = null;
          answer.error = error instanceof Error ? error.message : String(error);
        })
        .finally(() => {
          if (!stop.signal.aborted) answer.busy = false;
          done();
        });
    }, 120);
    return () => {
      clearTimeout(timer);
      stop.abort();
      done();
    };
  });
  return answer;
}

/** The passage and the step at which it is read: the same in every view, because the address holds both. */

import { answerTo, type AnswerState } from '../../lib/answer.svelte';
import type { PassagesAnswer, RunFacts } from '../../lib/generated';
import { selection } from '../../lib/selection.svelte';
import { studio } from '../../lib/studio.svelte';

/**
 * The chosen step; else the newest checkpoint, which needs no replay and stays the same while a run trains on. Of saved
 * versions, between which nothing can be replayed, it is the last one up to the chosen step.
 */
export function stepRead(facts: RunFacts | null, chosen: number | null): number | null {
  if (facts === null || facts.checkpoints.length === 0) return null;
  if (chosen === null) return Math.max(...facts.checkpoints);
  if (facts.history) return facts.checkpoints.findLast((step) => step <= chosen) ?? facts.checkpoints[0]!;
  return Math.min(Math.max(chosen, facts.first_step), Math.max(facts.last_step, facts.first_step));
}

/** At most `most` of the checkpoints, the first and the last among them. */
export function thinned(steps: readonly number[], most = 40): number[] {
  const sorted = [...steps].sort((a, b) => a - b);
  if (sorted.length <= most) return sorted;
  const kept = Array.from({ length: most }, (_, i) => sorted[Math.round((i * (sorted.length - 1)) / (most - 1))]!);
  return [...new Set(kept)];
}

export class Passage {
  constructor(readonly answer: AnswerState<PassagesAnswer>) {}

  get heldOut(): PassagesAnswer['passages'] {
    return this.answer.value?.passages ?? [];
  }
  /** One's own, else the first held-out one; null when there is none yet. */
  get text(): string | null {
    return selection.now.text || this.heldOut[0]?.text || null;
  }
  get own(): boolean {
    return selection.now.text !== '' && !this.heldOut.some((passage) => passage.text === selection.now.text);
  }
  get step(): number | null {
    return stepRead(studio.facts, selection.now.step);
  }
}

/** Call it while a view is made. */
export function chosenPassage(): Passage {
  return new Passage(answerTo(() => (studio.run ? { run: studio.run, look: 'passages' } : null)));
}

/** The position that is looked at, within a text of `count` tokens. */
export function positionIn(count: number): number {
  return Math.max(0, Math.min(count - 1, selection.now.token));
}

/** Bring the selected position back into the text, so that the arrow keys work at its end. */
export function holdPosition(count: () => number | null): void {
  $effect(() => {
    const known = count();
    if (known !== null && known > 0 && selection.now.token > known - 1) selection.set({ token: known - 1 });
  });
}

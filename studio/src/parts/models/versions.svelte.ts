/** The saved versions of a model, and which of them have the same weights. */

import { answerTo, type AnswerState } from '../../lib/answer.svelte';
import { count } from '../../lib/format';
import type { VersionFacts, VersionsAnswer } from '../../lib/generated';
import { studio } from '../../lib/studio.svelte';

/** Call it while a component is made. */
export function savedVersions(): AnswerState<VersionsAnswer> {
  return answerTo(() => (studio.run && studio.history ? { run: studio.run, look: 'versions' } : null));
}

export function sameAs(version: VersionFacts): string {
  return version.same_as === null ? '' : `Step ${count(version.step)} has the same weights as step ${count(version.same_as)} (${version.weights}).`;
}

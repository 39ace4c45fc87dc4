/**
 * What each view is about, at four depths: a picture (an analogy, and the sentence that says where it stops being
 * true), words, maths, and the code of this repository that does it. Text is plain; `maths` is MathML made here.
 */

import type { View } from '../lib/selection.svelte';
import { ATTENTION } from './attention';
import { CHAT } from './chat';
import type { Concept } from './concept';
import { GROWTH } from './growth';
import { LAYERS } from './layers';
import { LIVE } from './live';
import { NEURONS } from './neurons';
import { PREDICTIONS } from './predictions';
import { STEP } from './step';

export type { Concept } from './concept';

export const CONCEPTS: Record<View, Concept[]> = {
  live: LIVE, step: STEP, predictions: PREDICTIONS, layers: LAYERS, neurons: NEURONS, attention: ATTENTION,
  growth: GROWTH, chat: CHAT,
};

/**
 * What each view is about, at four depths: a picture (an analogy, and the sentence that says where it stops being
 * true), words, maths, and the code of this repository that does it. Text is plain; `maths` is MathML made here.
 */

import type { View } from '../lib/selection.svelte';

export interface Concept {
  title: string;
  picture: string;
  stops: string; // where the picture stops being true
  words: string;
  maths: string; // MathML, without the <math> element
  code: string[]; // FILE:NAME below src/etude
}

export const CONCEPTS: Record<View, Concept[]> = {
  live: [], step: [], predictions: [], layers: [], neurons: [], attention: [], growth: [], chat: [],
};

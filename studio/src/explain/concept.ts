import type { NamedSource } from '../lib/generated';

/** One concept, explained at four depths; the reader chooses the depth beside the view. */
export interface Concept {
  title: string;
  picture: string;
  stops: string; // where the picture stops being true
  words: string;
  maths: string; // MathML, without the <math> element
  symbols: string; // what the letters of the formula mean
  code: (string | NamedSource)[]; // FILE:NAME below src/etude, or the code itself
}

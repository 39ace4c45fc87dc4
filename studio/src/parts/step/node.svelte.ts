/** The chosen neuron and weight, within what the network has: a link may have been made for a larger one. */

import { selection } from '../../lib/selection.svelte';
import { studio } from '../../lib/studio.svelte';
import { nodeLayers } from '../layers/names';

const layers = () => nodeLayers(studio.facts);
const within = (wanted: number, count: number | undefined) => Math.min(wanted, Math.max(0, (count ?? 1) - 1));

export const node = {
  get layer(): number {
    return within(selection.now.layer, layers().length);
  },
  get unit(): number {
    return within(selection.now.unit, layers()[node.layer]?.units);
  },
  get input(): number {
    const count = layers()[node.layer]?.inputs;
    return count === undefined ? selection.now.input : within(selection.now.input, count);
  },
};

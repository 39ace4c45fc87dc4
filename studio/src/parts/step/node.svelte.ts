/** The chosen node and weight, within what the network has: a link may have been made for a larger one. */

import { selection } from '../../lib/selection.svelte';
import { studio } from '../../lib/studio.svelte';
import { inputsOfNodes, layersOfNodes } from '../layers/names';

export const node = {
  get layer(): number {
    return studio.facts ? Math.min(selection.now.layer, layersOfNodes(studio.facts) - 1) : 0;
  },
  get unit(): number {
    return Math.min(selection.now.unit, Math.max(0, (studio.facts?.model?.nodes ?? 1) - 1));
  },
  get input(): number {
    const count = studio.facts ? inputsOfNodes(studio.facts) : null;
    return count === null ? selection.now.input : Math.min(selection.now.input, count - 1);
  },
};

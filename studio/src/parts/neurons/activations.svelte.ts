/** The activations of a layer along a text, read from the file that an answer names. */

import type { NeuronsAnswer } from '../../lib/generated';
import { Tensors } from '../../lib/tensors';
import type { Activations } from './sorting';

export interface Layer extends Activations {
  of: NeuronsAnswer;
  pre: ArrayLike<number>; // the weighted sums, before the activation function
}

export class LayerRead {
  value = $state.raw<Layer | null>(null);
  error = $state('');
}

/** Call it while a component is made. */
export function layerOf(answer: () => NeuronsAnswer | null): LayerRead {
  const read = new LayerRead();
  $effect(() => {
    const of = answer();
    read.error = '';
    if (of === null) {
      read.value = null;
      return;
    }
    const stop = new AbortController();
    void (async () => {
      try {
        const file = await Tensors.open(of.tensors, stop.signal);
        const post = await file.read('post', stop.signal);
        const pre = file.has('pre') ? (await file.read('pre', stop.signal)).data : new Float32Array(0);
        if (stop.signal.aborted) return;
        const [tokens = 0, nodes = 0] = post.shape;
        read.value = { of, post: post.data, pre, tokens, nodes };
      } catch (error) {
        if (stop.signal.aborted) return;
        read.value = null;
        read.error = error instanceof Error ? error.message : String(error);
      }
    })();
    return () => stop.abort();
  });
  return read;
}

/** Turn a weight, a bias, a neuron or a head of the current network; the address holds the knobs. */

import { selection } from '../../lib/selection.svelte';
import { turnedOn, withKnob, withoutTarget, type Turned } from './turning';

/** Such as `turn('model.layers.0.mlp.post[17]*0')`. Turning the same thing again replaces how it was turned. */
export function turn(knob: string): void {
  selection.set({ knobs: withKnob(selection.now.knobs, knob) });
}

/** Take one back, by what it turns: `undo('model.layers.0.mlp.post[17]')`. */
export function undo(target: string): void {
  selection.set({ knobs: withoutTarget(selection.now.knobs, target) });
}

/** Take one back by its whole text, also where it turns nothing. */
export function drop(knob: string): void {
  selection.set({ knobs: selection.now.knobs.filter((other) => other !== knob) });
}

export function undoAll(): void {
  selection.set({ knobs: [] });
}

export function turned(target: string): Turned | null {
  return turnedOn(selection.now.knobs, target);
}

/** The usual words for a network's tensors and activations, and where its neurons sit. */

import type { NodeLayerFacts, RunFacts } from '../../lib/generated';

/** What an activation carries. */
export function called(name: string): string {
  const [, layer, leaf] = /^(?:model\.layers\.(\d+)\.)?(?:.*\.)?(\w+)$/.exec(name) ?? [];
  const words: Record<string, string> = {
    resid_pre: `into layer ${layer}`, resid_mid: `layer ${layer}, after attention`, resid_post: `out of layer ${layer}`,
    embed: 'embeddings', pre: 'sums of the neurons', post: 'activations of the neurons',
  };
  return words[leaf ?? ''] ?? name;
}

/** Which part of the network a tensor belongs to. */
export function placeOf(facts: RunFacts | null, name: string): string {
  const layer = /^model\.layers\.(\d+)\./.exec(name)?.[1];
  if (layer !== undefined) return `layer ${layer}`;
  if (name.includes('embed')) return 'embeddings';
  return nodeLayers(facts).some(({ gate, up }) => name.startsWith(`${gate}.`) || name.startsWith(`${up}.`)) ? 'neurons' : 'output';
}

/** A tensor's name within its place. */
export function short(name: string): string {
  return name.replace(/^model\.layers\.\d+\./, '').replace(/^model\./, '').replace(/\.weight$/, '');
}

/** The layers of neurons; none where the network is not known. */
export function nodeLayers(facts: RunFacts | null): NodeLayerFacts[] {
  return facts?.model?.node_layers ?? [];
}

/** The layer of neurons at this path. */
export function nodeLayerAt(facts: RunFacts | null, path: string): NodeLayerFacts | undefined {
  return nodeLayers(facts).find((layer) => layer.path === path);
}

/** A neuron in words, such as "neuron 3 of layer 1". */
export function neuronName(facts: RunFacts | null, path: string, unit: number): string {
  const layers = nodeLayers(facts);
  return layers.length > 1 ? `neuron ${unit} of layer ${layers.findIndex((layer) => layer.path === path)}` : `neuron ${unit}`;
}

/** The matrix that the neurons of a layer read with; in a gated layer that of the gate. A row of it is a neuron. */
export function readingMatrix(facts: RunFacts | null, layer: number): string {
  const found = nodeLayers(facts)[layer];
  return found ? `${found.gate}.weight` : '';
}

/** The neuron and its input that a cell of a matrix stands for; null where there is none. */
export function nodeAt(facts: RunFacts | null, name: string, row: number, col: number): { layer: number; unit: number; input?: number } | null {
  for (const [layer, { gate, up, out, units }] of nodeLayers(facts).entries()) {
    if (name === `${gate}.weight` || name === `${up}.weight`) return { layer, unit: row, input: col };
    if (name === `${out}.weight` && col < units) return { layer, unit: col };
  }
  return null;
}

/** How many rows and columns a tensor has as a picture. */
export function asMatrix(shape: number[]): [number, number] {
  return shape.length >= 2 ? [shape[0]!, shape.slice(1).reduce((so, n) => so * n, 1)] : [1, shape[0] ?? 1];
}

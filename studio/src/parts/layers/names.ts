/** The names of a network's tensors and activations as a person says them, and where its nodes sit. */

import type { RunFacts } from '../../lib/contract';

/** An activation: what travels there. */
export function called(name: string): string {
  const [, layer, leaf] = /^model\.layers\.(\d+)\.(?:.*\.)?(\w+)$/.exec(name) ?? [];
  if (leaf === 'resid_pre') return `into layer ${layer}`;
  if (leaf === 'resid_mid') return `layer ${layer}, behind attention`;
  if (leaf === 'resid_post') return `out of layer ${layer}`;
  const others: Record<string, string> = {
    'model.embed_tokens.embed': 'embeddings', 'model.pre': 'nodes, their sums', 'model.post': 'nodes, activated', logits: 'logits',
  };
  return others[name] ?? name;
}

/** Which part of the network a tensor belongs to. */
export function placeOf(name: string): string {
  const layer = /^model\.layers\.(\d+)\./.exec(name)?.[1];
  if (layer !== undefined) return `layer ${layer}`;
  if (name.includes('embed')) return 'embeddings';
  if (name.startsWith('model.hidden')) return 'nodes';
  return 'output';
}

/** A tensor's name within its place. */
export function short(name: string): string {
  return name.replace(/^model\.layers\.\d+\./, '').replace(/^model\./, '').replace(/\.weight$/, '');
}

export function layersOfNodes(facts: RunFacts): number {
  return facts.model === null || facts.model.family === 'mlp' ? 1 : facts.model.layers;
}

/** The matrix that the nodes of a layer read with; of a gated MLP that of the gate. A row of it is a node. */
export function readingMatrix(facts: RunFacts, layer: number): string {
  if (facts.model?.family === 'mlp') return 'model.hidden.weight';
  return `model.layers.${layer}.mlp.${facts.model?.gated ? 'gate' : 'up'}_proj.weight`;
}

/** How many numbers a node reads; null where only the opened step tells (the window of the mlp family). */
export function inputsOfNodes(facts: RunFacts): number | null {
  return facts.model === null || facts.model.family === 'mlp' ? null : facts.model.width;
}

/** The node and the input of it that a cell of a matrix stands for; null where there are no nodes. */
export function nodeAt(facts: RunFacts, name: string, row: number, col: number): { layer: number; unit: number; input?: number } | null {
  if (facts.model === null) return null;
  if (facts.model.family === 'mlp') {
    if (name === 'model.hidden.weight') return { layer: 0, unit: row, input: col };
    return name === 'lm_head.weight' && col < facts.model.nodes ? { layer: 0, unit: col } : null;
  }
  const [, layer, part] = /^model\.layers\.(\d+)\.mlp\.(\w+)_proj\.weight$/.exec(name) ?? [];
  if (layer === undefined) return null;
  return part === 'down' ? { layer: Number(layer), unit: col } : { layer: Number(layer), unit: row, input: col };
}

/** How many rows and columns a tensor has as a picture. */
export function asMatrix(shape: number[]): [number, number] {
  return shape.length >= 2 ? [shape[0]!, shape.slice(1).reduce((so, n) => so * n, 1)] : [1, shape[0] ?? 1];
}

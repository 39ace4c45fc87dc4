/** Orders of the neurons of a layer: by their activation along a text, and by the change of their weights. */

export const ORDERS = {
  natural: 'by number',
  loudest: 'largest effect',
  changed: 'most changed',
  selective: 'most selective',
  quiet: 'smallest effect (dead first)',
} as const;
export type Order = keyof typeof ORDERS;

/** Activations along a text, (T, F): token by token, all neurons of each. */
export interface Activations {
  post: ArrayLike<number>;
  tokens: number;
  nodes: number;
}

export interface Measures {
  /** Mean size of the effect: activation times the length of the outgoing weights. */
  loudness: Float64Array;
  /** Largest over mean activation: 1 if always the same, T if active at one token only. */
  selectivity: Float64Array;
  largest: Float64Array; // by size, with its sign
}

export function measured({ post, tokens, nodes }: Activations, outgoing: readonly number[]): Measures {
  const loudness = new Float64Array(nodes), selectivity = new Float64Array(nodes), largest = new Float64Array(nodes);
  for (let node = 0; node < nodes; node++) {
    let total = 0, most = 0;
    for (let t = 0; t < tokens; t++) {
      const value = post[t * nodes + node]!;
      const size = Math.abs(value);
      if (!Number.isFinite(size)) continue;
      total += size;
      if (size > Math.abs(most)) most = value;
    }
    const mean = tokens ? total / tokens : 0;
    loudness[node] = mean * (outgoing[node] ?? 0);
    selectivity[node] = mean > 0 ? Math.abs(most) / mean : 0;
    largest[node] = most;
  }
  return { loudness, selectivity, largest };
}

/** Neuron numbers in an order. Among equals the lower number comes first. */
export function sorted(order: Order, measures: Measures, change: readonly number[] | null): number[] {
  const nodes = Array.from({ length: measures.loudness.length }, (_, node) => node);
  if (order === 'natural') return nodes;
  const key: Record<Exclude<Order, 'natural'>, (node: number) => number> = {
    loudest: (node) => measures.loudness[node]!,
    changed: (node) => change?.[node] ?? 0,
    selective: (node) => measures.selectivity[node]!,
    quiet: (node) => -measures.loudness[node]!,
  };
  const of = key[order];
  return nodes.sort((a, b) => of(b) - of(a) || a - b);
}

/**
 * The result of a search: for a number that neuron, for a piece of text the neurons with the largest effect at the tokens
 * that contain it. Null when it is neither.
 */
export function found(
  query: string, { post, tokens, nodes }: Activations, texts: readonly string[], outgoing: readonly number[],
): { order: number[]; at: number[] } | null {
  const wanted = query.trim();
  if (wanted === '') return null;
  if (/^\d+$/.test(wanted) && Number(wanted) < nodes) return { order: [Number(wanted)], at: [] };
  const at = texts.flatMap((text, t) => (t < tokens && text.toLowerCase().includes(wanted.toLowerCase()) ? [t] : []));
  if (at.length === 0) return null;
  const there = new Float64Array(nodes);
  for (const t of at) for (let node = 0; node < nodes; node++) there[node]! += Math.abs(post[t * nodes + node]!) * (outgoing[node] ?? 0);
  const order = Array.from({ length: nodes }, (_, node) => node).sort((a, b) => there[b]! - there[a]! || a - b);
  return { order, at };
}

/** One neuron along the text. */
export function along({ post, tokens, nodes }: Activations, node: number): number[] {
  return Array.from({ length: tokens }, (_, t) => post[t * nodes + node]!);
}

/** (neurons, tokens) in an order: a row of a picture for each neuron. */
export function rowsOf(activations: Activations, order: readonly number[]): Float32Array {
  const { post, tokens, nodes } = activations;
  const rows = new Float32Array(order.length * tokens);
  order.forEach((node, row) => {
    for (let t = 0; t < tokens; t++) rows[row * tokens + t] = post[t * nodes + node]!;
  });
  return rows;
}

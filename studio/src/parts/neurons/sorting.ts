/** The nodes of a layer in an order that tells something: how they answer along a text, and how their weights changed. */

export const ORDERS = {
  natural: 'as they stand',
  loudest: 'loudest',
  changed: 'most changed',
  selective: 'most selective',
  quiet: 'quietest (dead first)',
} as const;
export type Order = keyof typeof ORDERS;

/** Activations along a text, (T, F): token by token, all nodes of each. */
export interface Activations {
  post: ArrayLike<number>;
  tokens: number;
  nodes: number;
}

export interface Measures {
  /** Mean size of what it adds: activation times the length of the weights it writes with. */
  loudness: Float64Array;
  /** How far its largest activation stands out of its mean one: 1 is always the same, T is at one token only. */
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

/** Node numbers, in an order. Of equal ones the lower number comes first. */
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
 * What a person looks for: the number of a node, or a piece of text, for the nodes that answer most at the tokens
 * with it. Null when it is neither.
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

/** One node along the text. */
export function along({ post, tokens, nodes }: Activations, node: number): number[] {
  return Array.from({ length: tokens }, (_, t) => post[t * nodes + node]!);
}

/** (nodes, tokens), in an order: a row of a picture for each. */
export function rowsOf(activations: Activations, order: readonly number[]): Float32Array {
  const { post, tokens, nodes } = activations;
  const rows = new Float32Array(order.length * tokens);
  order.forEach((node, row) => {
    for (let t = 0; t < tokens; t++) rows[row * tokens + t] = post[t * nodes + node]!;
  });
  return rows;
}

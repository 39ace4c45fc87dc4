/** What is answered to each look of a Question: as `etude inspect --json`, from the same functions (etude.watch.values). */

import type { NamedSource } from './contract';

export interface Proof {
  holds: boolean;
  from_step: number;
  steps_compared: number;
  checksums_equal: number;
  largest_loss_difference: number;
  largest_norm_difference: number;
  other_machine: string[];
  text: string;
}

export interface RowToken {
  position: number;
  read: string;
  likeliest: string;
  likeliest_probability: number;
  desired: string | null;
  desired_probability: number | null;
  loss: number;
  loss_after: number | null; // the same token predicted with the weights after the update
}

export interface StepAnswer {
  step: number;
  dtype: Dtype;
  proof: Proof;
  loss: number; // of the whole batch, nats a token
  row_loss: number | null; // null where the loss counts none of them; of this row's tokens
  row_loss_after: number | null; // of the same, with the weights after the update
  grad_norm: number;
  clip_factor: number;
  applied: boolean;
  num_rows: number;
  num_targets: number;
  rows: { row: number; documents: string[] }[];
  row: number;
  tokens: RowToken[];
  parameters: {
    name: string;
    shape: number[];
    rule: string;
    rule_title: string;
    lr: number;
    weight_decay: number;
    weight_norm: number;
    grad_norm: number;
    update_norm: number;
    update_ratio: number | null;
  }[];
  /** Along the row: how long the vector of each activation is at each position, and that of the error there. */
  stream: { name: string; norm: number[]; grad_norm: number[] }[];
}

export interface TokenAnswer {
  step: number;
  dtype: Dtype;
  row: number;
  position: number;
  context: string;
  desired: string | null;
  probability: number;
  rank: number;
  vocabulary: number;
  loss: number;
  guesses: { token: string; probability: number; desired: number; error: number }[];
  logits: { logsumexp: number; desired: number | null }; // loss = logsumexp - desired, in double precision
  stream: { name: string; norm: number; grad_norm: number }[];
  proof: Proof;
}

/** Of a run's matrix products. In bf16 both factors and the result are rounded to 8 bits. */
export type Dtype = 'fp32' | 'bf16';

/** One sum of a node: what it reads times its weights, plus its bias. Terms are in the order of their size. */
export interface WeightedSum {
  terms: { input: number; value: number; weight: number; term: number }[];
  bias: number | null;
  sum: number;
  forward_pass: number;
  dtype: Dtype; // values, weights and bias are as the product read them
}

export interface UnitAnswer {
  step: number;
  row: number;
  position: number;
  layer: string; // such as model.layers.1.mlp
  unit: number;
  read: string;
  desired: string | null;
  proof: Proof;
  arithmetic: { gate: WeightedSum; up: WeightedSum | null; function: string; activation: number; difference: number };
  /** How its error is made: each output weight times the error at what it writes to, summed; times the slope. */
  error: {
    outgoing: number[]; // (D,) the weights that it writes with, as the product read them
    arriving: number[]; // (D,) the error at the numbers that it writes to, likewise
    at_activation: number; // their products' sum, as the backward pass had it
    slope: number; // how much the activation moves when the sum of the gate does
    at_sum: number; // as the backward pass had it: at_activation * slope
  };
  /** One weight of it: the pushes of every token of the whole batch on it. */
  weight: {
    input: number;
    name: string;
    index: number[];
    /**
     * A push is a token's share of the gradient: its error times its input. Below zero it pushes the weight up (the sum
     * of those is `up`), above zero down. `total` is their sum, `gradient` the same as the run had it, `size` the sum
     * of their sizes, `rounded` that of all that was rounded to make them (`TugOfWar` in etude.watch.layer_in_step).
     */
    pushes: { up: number; down: number; up_count: number; down_count: number; size: number; rounded: number; total: number; gradient: number };
    largest: { row: number; position: number; token_id: number; read: string; value: number; error: number; push: number }[];
    step: WeightStep;
  };
  bias: { name: string; index: number[]; step: WeightStep } | null;
}

export interface WeightStep {
  step: number;
  before: number;
  gradient: number;
  clip_factor: number;
  state_before: Record<string, number>; // by leaf of the rule's state, such as exp_avg
  state_after: Record<string, number>;
  rule: string;
  rule_title: string; // as a reader knows it
  rule_summary: string; // a sentence on how the rule moves a weight, or nothing
  lr: number;
  weight_decay: number;
  decay: number;
  terms: Term[]; // from the clipped gradient to the direction, which is the last
  direction: number;
  update: number;
  after: number;
  by_the_rule: number;
  difference: number;
  applied: boolean;
  proof: string;
}

/** A number, a name, or an operation on formulas. Names: clipped (the gradient), state.LEAF (before), a term's symbol. */
export type Formula = number | string | FormulaOf;
export type FormulaOf = ['+' | '-' | '*' | '/' | '^' | 'sqrt' | 'sign', ...Formula[]];

/** A line of an update rule's arithmetic, as the rule describes it. */
export interface Term {
  symbol: string;
  words: string;
  formula: Formula | null; // null: it does not follow from this number alone, and `note` says where it comes from
  value: number;
  leaf: string | null; // of the state, which has this value after the update
  note: string;
}

/** The update rules of a run, each in words. */
export interface RulesAnswer {
  rules: {
    name: string;
    title: string;
    picture: string;
    stops: string;
    words: string;
    formulas: string[]; // as text, such as m ← β₁ m + (1 - β₁) g
    symbols: string;
    code: NamedSource[];
  }[];
}

export interface WeightAnswer {
  name: string;
  index: number[];
  shape: number[];
  at: WeightStep;
}

export interface MatrixAnswer {
  step: number;
  name: string;
  what: string;
  since: number; // the step that "since_start" counts from
  shape: [number, number]; // of the whole tensor, as a matrix
  rows: [number, number]; // of it that are here
  bin: [number, number]; // every cell is the mean of so many rows by columns; [1, 1] where it is whole
  tensors: string; // KEY of a file with "values" (rows, columns) and, where binned, "spread" of the same shape
  norm: number;
  proof: Proof;
}

export interface PassagesAnswer {
  passages: { name: string; text: string }[]; // of the held-out text
}

export interface PromptAnswer {
  where: string;
  tokens: string[];
  ids: number[];
  losses: number[]; // of every token but the first
  guesses: { token: number; text: string; probability: number }[];
  guesses_along: { token: number; text: string; probability: number }[][]; // behind every token
  contributions: { terms: Record<string, number>; logit: number; unexplained: number };
  lens?: number[][]; // (layers + 1, tokens) probability of the token that comes next, after each layer
  patterns?: number[][][][]; // (layers, heads, query, key)
  induction?: { scores: number[][]; chance: number };
  heads?: { layer: number; head: number; previous: number; first: number; itself: number; entropy: number }[];
  proof: Proof | null;
}

/** Which tokens speak for the likeliest token behind the text. */
export interface AttributionAnswer {
  token: string;
  logit: number;
  gradient_times_input: number[];
  ablation: number[];
}

export interface StoryAnswer {
  tokens: string[];
  steps: number[];
  losses: (number | null)[][]; // (steps, tokens - 1)
  /** Behind every token at every step: the likeliest one. */
  likeliest: { text: string; probability: number }[][];
}

export interface NeuronsAnswer {
  step: number;
  layer: string;
  tokens: string[];
  tensors: string; // KEY: "post" (T, F) along the text, "pre" (T, F)
  incoming: number[]; // (F,) length of each node's weights
  outgoing: number[];
  change: number[] | null; // (F,) length of the change of its weights since the first checkpoint
  proof: Proof | null;
}

export interface NodeAnswer {
  step: number;
  layer: string;
  unit: number;
  weights: number[];
  bias: number | null;
  up_weights: number[] | null;
  up_bias: number | null;
  outgoing: number[];
  promoted: { token: string; value: number }[];
  suppressed: { token: string; value: number }[];
  most: Passage[];
  least: Passage[];
  share_active: number;
  dead: boolean;
  /** At every checkpoint, over the same sample of held-out text; norms are lengths of the node's weights. */
  history: {
    step: number;
    mean: number;
    std: number;
    max: number;
    share_active: number;
    norm_in: number;
    norm_up: number | null;
    norm_out: number;
  }[];
  came_alive: number | null;
  died: number | null;
  proof: Proof;
}
/** A token of the held-out text, at which a node has this activation, with what stands around it. */
export interface Passage {
  value: number;
  before: string;
  token: string;
  after: string;
  place: number;
  document: string;
  token_ids: number[]; // all that the network had read there, the token itself last
}

export interface CompareAnswer {
  where: string;
  tokens: string[];
  knobs: string[];
  losses_before: number[];
  losses_after: number[];
  divergence: number[];
  next: { token: string; before: number; after: number }[];
}

export interface ForkAnswer {
  run: string;
  step: number;
  turned: string[];
}

export interface ChatAnswer {
  text: string;
  finish: 'eos' | 'length' | 'context';
  where: string;
}

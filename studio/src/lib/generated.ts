/**
 * Written by `python -m etude.serve.typescript`; do not edit.
 *
 * Everything that the studio's server answers, and the questions that the page may ask.
 *
 * GET  api/runs                        RunLine[]
 * GET  api/runs/NAME                   RunFacts
 * GET  api/runs/NAME/rows?from=A,B     Rows: lines of metrics.jsonl and samples.jsonl behind byte offsets A and B
 * GET  api/runs/NAME/abilities         Ability[]
 * GET  api/runs/NAME/tuning            TuningStep[]
 * POST api/runs/NAME/control           {action}: answers {}; only where RunFacts.control is true
 * POST api/runs/NAME/doctor            Verdict[]: those of `etude doctor RUN`, after some seconds
 * POST api/ask                         a Question; lines of JSON: Progress, Busy, ConversationLine and TokenLine,
 *                                      then {answer} or Failure
 * GET  api/tensors/KEY                 a file of safetensors, which the page reads in parts by Range
 * GET  api/source?of=FILE:NAME         Source: a function or class of Etude's own code, as it is installed
 *
 * All of these need the token, which opening the printed address exchanges for a cookie; without it they answer 401.
 */

/** A run, or a model without a run, in the list. */
export interface RunLine {
  name: string;
  state: 'not begun' | 'starting' | 'running' | 'lost' | 'finished' | 'stopped' | 'failed' | 'damaged' | 'unreadable' | 'model' | 'history'; // "model" for a model without a run, "history" for several saved versions of one
  step: number;
  loss: number | null; // of its last step, nats per token
  val_loss: number | null; // of its last evaluation
  bits_per_byte: number | null;
  changed: number; // seconds since 1970
}

/** A layer of neurons. */
export interface NodeLayerFacts {
  path: string; // what it is called, such as model.layers.2.mlp
  units: number; // how many neurons it has
  inputs: number; // how many numbers each of them reads
  gate: string; // the linear layer that the activation function follows; a row of its weight is a neuron
  up: string | null; // the linear layer that a gate lets through; None where nothing is gated
  out: string; // the linear layer with which neurons write; a column of its weight is a neuron
  drops_units: boolean; // whether dropout drops neurons, and not the numbers that they add to
}

/** The network of a run, in the same words for all families. */
export interface ModelFacts {
  family: string;
  attention: boolean; // whether it has attention heads and a residual stream
  layers: number;
  width: number; // D, the length of a token's embedding
  nodes: number; // neurons in each layer of them
  heads: number;
  kv_heads: number;
  vocabulary: number; // V
  context: number;
  activation: string;
  gated: boolean;
  biases: boolean;
  parameters: number;
  tied: boolean;
  window: number; // tokens whose embeddings a position reads side by side; 1 where attention brings in the others
  node_layers: NodeLayerFacts[];
}

/** What is known of a model that has no run, from the files beside its weights. */
export interface PublishedFacts {
  source: string; // the file or the place that it came from; empty if it is not recorded
  licence: string | null; // as stated; None if it is not
  rounding: string | null; // number formats that its weights were rounded to; None if they were not
  chat_template: boolean; // whether it has one
  train: string; // the command that continues its training on a text
}

/** Several saved versions of a model, whose training Etude did not record. */
export interface HistoryFacts {
  note: string; // what is not known
  evaluate: string; // the command that scores every version
}

/** The model that a run began with. */
export interface BaseFacts {
  name: string; // how the user named it, without the folders before it
  step: number | null; // its step, if Etude trained it
}

/** An earlier kind of language model on the same held-out text. */
export interface Rung {
  order: number; // 0 for pure guessing, 1 for the frequency of each symbol, n for a symbol after n - 1 others
  name: string;
  loss: number; // nats per token of this run's tokens
  bits_per_byte: number;
}

/**
 * What the page knows of a run, or of a model without one, before it asks anything.
 *
 * A model without a run has one checkpoint, of step 0, and no record. One in several saved versions has a checkpoint
 * for each; the other facts are those of the last.
 */
export interface RunFacts {
  name: string;
  state: 'not begun' | 'starting' | 'running' | 'lost' | 'finished' | 'stopped' | 'failed' | 'damaged' | 'unreadable' | 'model' | 'history';
  step: number;
  num_steps: number | null;
  reason: string; // why it ended
  heartbeat: number | null; // seconds since 1970
  now: number; // the server's clock
  paused: boolean;
  control: boolean; // whether this page may pause the training, and so on
  fork: boolean; // whether this page may write a new run beside it
  schema_known: boolean;
  model: ModelFacts | null;
  published: PublishedFacts | null; // None for a run
  history: HistoryFacts | null; // None for a run, and for a model in one version
  base: BaseFacts | null; // None for a run that began with random weights
  optimizer: string;
  sources: string[];
  uniform_loss: number | null; // ln V, nats per token
  ladder: Rung[]; // the weakest first
  checkpoints: number[];
  first_step: number; // the first that can be opened
  last_step: number;
  compiled: boolean;
  turns: boolean; // whether it has a chat template, and so answers in a conversation
}

/** A tensor in a summary. */
export interface TensorNorms {
  weight_norm: number | null;
  grad_norm: number | null;
  update_norm: number | null;
  update_ratio: number | null;
}

/** How long the parts of a step took. */
export interface StepSeconds {
  batch: number;
  forward: number;
  backward: number;
  update: number;
}

/** A line of metrics.jsonl, with the fields that the page reads; which are there depends on `event`. */
export interface MetricRow {
  event: string; // step, eval, reference, preference, reward, rung, summary, spike, left_out (a skipped step), checkpoint, length, micro_batch, checksum, end
  step: number;
  tokens_seen: number;
  wall_time: number;
  loss?: number | null;
  grad_norm?: number | null;
  lr?: number | null;
  tokens_per_second?: number | null;
  val_loss?: number | null;
  bits_per_byte?: number | null;
  order?: number;
  num_steps?: number;
  usual?: number | null;
  digest?: string;
  accuracy?: number;
  chosen?: number;
  rejected?: number;
  num_pairs?: number;
  right?: number;
  ended?: number;
  mixed?: number;
  tokens?: number;
  divergence?: number | null;
  num_answers?: number;
  reason?: string;
  tensors?: Record<string, TensorNorms>;
  attention_entropy?: ((number | null)[])[];
  dead_units?: number[];
  seconds?: StepSeconds;
}

/** A line of samples.jsonl. */
export interface SampleRow {
  event: 'sample';
  step: number;
  prompt: string;
  text: string;
}

/** New lines of a run's logs. */
export interface Rows {
  reset: boolean; // the record is another one than before: forget what was read
  cursor: string; // for the next request
  more: boolean; // more can be read at once
  every: number; // of a long record only every so many-th step is sent; all other events are
  metrics: MetricRow[];
  samples: SampleRow[];
}

/** A probe of an ability, with its scores by step. */
export interface Ability {
  title: string;
  asks: string;
  held_out: string;
  chance: number;
  num_items: number;
  label: string;
  num_parameters: number;
  counting: number | null; // the share that is right by counting alone
  random: number | null; // the share that is right with random weights
  steps: number[];
  right: number[];
  low: number[]; // lower end of the confidence interval of `right`
  high: number[]; // its upper end
  probability: number[]; // of the right answer among the candidates, geometric mean
  exact: (number | null)[];
  independent: (number | null)[];
}

/** A verdict of the doctor on a run: its finding, and the rule behind it. */
export interface Verdict {
  rule: string;
  severity: 'problem' | 'notice' | 'fine' | 'not judged';
  finding: string;
  statement: string;
  advice: string;
}

/** A piece of Etude's own code. */
export interface Source {
  file: string;
  first_line: number;
  text: string;
}

/** A figure with its 95 % interval; None where it has none. */
export interface TuningFigure {
  value: number;
  low: number | null;
  high: number | null;
}

/** What the base, with a number of examples before each question, or the tuned model does with held-out questions. */
export interface TuningSystem {
  name: string;
  loss: TuningFigure; // nats per trained token of the held-out answers
  right: TuningFigure | null; // share of right answers among the short ones
  ended: number | null; // share of answers that ended by themselves
  copies: number | null; // share of answers that equal a training answer
  wrong_copies: number | null; // share of these that are not right
}

/** The share of right answers of a rule without a language model, which a classification is compared with. */
export interface TuningNull {
  name: string;
  right: TuningFigure;
}

/** The share of right answers to one kind of question. */
export interface TuningKind {
  name: string;
  asked: number; // questions of this kind
  base: TuningFigure;
  prompted: TuningFigure; // of the base with its best prompt
  tuned: TuningFigure;
}

/** Bits per byte on a reference text before and after tuning. */
export interface TuningText {
  name: string;
  base: number;
  tuned: number;
  rise: TuningFigure;
}

/** The base, or the model tuned on pairs, on held-out pairs of a chosen and a rejected answer. */
export interface TuningPairs {
  name: string;
  won: TuningFigure; // share of pairs whose chosen answer is the more probable one
  gained: TuningFigure | null; // share of pairs whose chosen answer gained on the rejected one since the base; None for the base
  chosen: TuningFigure; // log-probability of a token of the chosen answers, nats
  rejected: TuningFigure; // the same of the rejected answers
}

/** The share of right answers to a probe of general abilities before and after tuning. */
export interface TuningProbe {
  name: string;
  asks: string; // what is asked, in a sentence
  chance: number;
  items: number;
  base: TuningFigure;
  tuned: TuningFigure;
  change: TuningFigure;
}

/** What a tuning gained and cost at one step. */
export interface TuningStep {
  step: number;
  base: string;
  asked: number; // held-out questions, or pairs
  best_examples: number; // in the base's best prompt
  systems: TuningSystem[]; // the base without a prompt first, the tuned model last; none for a run on pairs
  nulls: TuningNull[]; // rules without a language model, of a classification; else none
  kinds: TuningKind[]; // of questions, where the data name them; else none
  pairs: TuningPairs[]; // the base and the tuned model, of a run on pairs; else none
  pair_changes: TuningFigure[]; // of the log-probabilities of chosen and of rejected answers, per token; else none
  texts: TuningText[];
  probes: TuningProbe[]; // general abilities; none where they were not asked
  probes_dropped: boolean; // whether they were not asked for want of time
  claims: string[];
  verdict: string;
  error_rates: string;
}

/** A tensor as a matrix. */
export interface MatrixAnswer {
  step: number;
  name: string;
  what: What;
  since: number; // the step that "since_start" counts from
  shape: [number, number]; // of the whole tensor
  rows: [number, number]; // the rows that are given
  bin: [number, number]; // every cell is the mean of so many rows by columns; [1, 1] where none are merged
  tensors: string; // key of a file with "values" (rows, columns) and, where binned, "spread" of the same shape
  norm: number;
  proof: ProofAnswer | null; // None for a model without a run
}

export type What = 'before' | 'gradient' | 'update' | 'after' | 'since_start' | 'product';

/** How a replay compares with the record of the run. */
export interface ProofAnswer {
  holds: boolean;
  from_step: number;
  steps_compared: number;
  checksums_equal: number;
  largest_loss_difference: number;
  largest_norm_difference: number;
  other_machine: string[];
  text: string;
}

/** One number of a tensor in one step. */
export interface WeightAnswer {
  name: string;
  index: number[];
  shape: number[];
  at: WeightStepAnswer;
}

/** What one step made of one number. */
export interface WeightStepAnswer {
  step: number;
  before: number;
  gradient: number;
  clip_factor: number;
  state_before: Record<string, number>; // by leaf of the rule's state, such as exp_avg
  state_after: Record<string, number>;
  rule: string;
  rule_title: string; // the rule's usual name
  rule_summary: string; // a sentence on how the rule moves a weight, or nothing
  lr: number;
  weight_decay: number;
  betas: number[];
  eps: number;
  momentum: number;
  applied: boolean;
  decay: number;
  terms: TermAnswer[]; // from the clipped gradient to the direction, which is the last
  orthogonal: number | null; // Muon's orthogonalised momentum; None for other rules
  scale: number;
  direction: number;
  update: number;
  after: number;
  by_the_rule: number;
  difference: number;
  proof: string;
  low_rank?: LowRankAnswer;
}

/** A line of an update rule's arithmetic. */
export interface TermAnswer {
  symbol: string;
  words: string;
  formula: Formula | null; // None where the value does not follow from this number alone; `note` says where it comes from
  value: number;
  leaf: string | null; // of the rule's state, which holds this value after the update
  note: string;
}

export type Formula = number | string | FormulaOf;

export type FormulaOf = ['sqrt' | 'sign', Formula] | ['+' | '-' | '*' | '/' | '^', Formula, Formula];

/** What an adapter adds to one number of a matrix: the scale times a row of B times a column of A. */
export interface LowRankAnswer {
  base: number; // the frozen weight. up_name, down_name: the parameters B and A. up, down: the row of B and the column of A before the step
  up_name: string;
  down_name: string;
  up: number[];
  down: number[];
  scale: number;
  product: number; // what is added before the step
  product_after: number;
  share: number; // the size of the product over the sizes of product and frozen weight together. sum, sum_after: the weight that the layer computes with, before and after the step
  sum: number;
  sum_after: number;
  gradient: number; // of the loss by that weight: it was not applied to the frozen one
}

/** The update rules of a run. */
export interface RulesAnswer {
  rules: RuleAnswer[];
}

/** An update rule in words. */
export interface RuleAnswer {
  name: string;
  title: string;
  picture: string;
  stops: string;
  words: string;
  formulas: string[]; // as text, such as m ← β₁ m + (1 - β₁) g
  symbols: string;
  code: NamedSource[];
}

/** The code of a function or class as it is installed. */
export interface NamedSource {
  name: string;
  file: string;
  first_line: number;
  text: string;
}

/** The beginning of a held-out document. */
export interface HeldOutText {
  name: string;
  text: string;
}

/** Texts that the model does not learn from. */
export interface PassagesAnswer {
  passages: HeldOutText[];
}

/** Shares of a head's attention along a text; None where not finite. */
export interface HeadAnswer {
  layer: number;
  head: number;
  previous: number | null; // to the token just before
  first: number | null; // to the first token
  itself: number | null; // to the token itself
  entropy: number | null; // nats; 0 where all goes to one token
  here: number | null; // to the tokens that followed earlier occurrences of the query's token in this text; None if too few did
  kind: string; // what it does most
}

/** The attention pattern of a head, (query, key). */
export interface HeadPattern {
  layer: number;
  head: number;
  pattern: ((number | null)[])[];
}

/** A text on its way through the network of a step. */
export interface PromptAnswer {
  where: string;
  tokens: string[];
  ids: number[];
  losses: number[]; // of every token but the first
  guesses: Guess[];
  contributions: ContributionsAnswer;
  lens?: number[][]; // (layers + 1, tokens) probability of the token that comes next, after each layer
  induction?: InductionAnswer;
  guesses_along: Guess[][]; // behind every token
  heads?: HeadAnswer[];
  drawn?: HeadPattern[]; // the patterns of some heads, kind by kind; the look "head" gives that of another
  choice?: string; // how many heads are drawn, of how many, and why those
  sinks?: string; // how many heads look at the first token, and why; empty where none does
  proof: ProofAnswer | null; // None at a checkpoint that was loaded without a replay
}

/** One token of a predicted distribution. */
export interface Guess {
  token: number;
  text: string;
  probability: number;
}

/** What each part of the network adds to one logit. */
export interface ContributionsAnswer {
  terms: Record<string, number>;
  logit: number;
  unexplained: number;
}

/** Induction scores by layer and head, and what a head that looks everywhere alike would have. */
export interface InductionAnswer {
  scores: ((number | null)[])[];
  chance: number;
}

/** A layer of F neurons along a text of T tokens. */
export interface NeuronsAnswer {
  step: number;
  layer: string;
  tokens: string[];
  tensors: string; // key of a file with "post" (T, F), the activations, and "pre" (T, F), the sums
  incoming: number[]; // (F,) length of the weights that each reads with
  outgoing: number[]; // (F,) length of the weights that each writes with
  change: number[] | null; // (F,) length of the change of `incoming` weights since the first checkpoint
  proof: ProofAnswer | null;
}

/** The length of the residual stream at each token, at a place of the network; None where not finite. */
export interface StreamAlong {
  name: string;
  norm: (number | null)[];
}

/** A tensor of the network: its shape, and the length, mean and standard deviation of its numbers. */
export interface ParameterFacts {
  name: string;
  shape: number[];
  norm: number | null;
  mean: number | null;
  deviation: number | null;
}

/** A text on its way up the layers, and the tensors of the network. */
export interface LayersAnswer {
  tokens: string[];
  stream: StreamAlong[];
  parameters: ParameterFacts[];
}

/** One number of a tensor, and where it lies among the others. */
export interface ValueAnswer {
  name: string;
  index: number[];
  shape: number[];
  value: number;
  share_smaller: number; // share of the tensor's numbers that are smaller in size
  mean: number;
  deviation: number;
}

/** A saved version of a model. */
export interface VersionFacts {
  step: number;
  name: string; // of its folder
  same_as: number | null; // the step of an earlier version with the same weights; None without one
  weights: string | null; // hash of its weights, if they are those of an earlier version
}

/** The saved versions of a model, in the order of steps. */
export interface VersionsAnswer {
  versions: VersionFacts[];
}

/** A new run that starts from a step with some numbers turned. */
export interface ForkAnswer {
  run: string;
  step: number;
  turned: string[];
}

/** A whole continuation, or answer in a conversation, and why it ended. */
export interface ChatAnswer {
  text: string;
  finish: 'eos' | 'length' | 'context' | 'stop';
  where: string;
}

/** One turn of a conversation. */
export interface ChatMessage {
  role: 'system' | 'user' | 'assistant';
  content: string;
}

/**
 * A question about a run, besides its `look`; which fields are needed depends on that.
 *
 * For a model in several saved versions, `step` chooses one of them.
 *
 * step:        step, row                            token:  step, row, position
 * unit:        step, row, position, layer, unit, [input]
 * weight:      step, name, index                    matrix: step, name, what, [rows]
 * prompt:      text, [step]                         attribution: text, [step]
 * head:        text, [step], layer, head            node_in_text: text, layer, unit (of a model)
 * layers:      text (of a model)                    value:  name, index (of a model)
 * story:       text, [steps]                        neurons: step, layer, text
 * node:        step, layer, unit                    compare: text, [step], knobs
 * fork:        step, knobs, name                    versions: (of a model in several)
 * chat:        text or messages, [step], temperature, top_p, seed, count, [taken] or [retries]
 *
 * `ids` in place of `text` are exactly the tokens to read.
 */
export interface Question {
  run: string;
  step?: number;
  row?: number;
  position?: number;
  layer?: number;
  head?: number;
  unit?: number;
  input?: number;
  name?: string;
  index?: number[];
  what?: What;
  rows?: [number, number];
  text?: string;
  steps?: number[];
  knobs?: string[];
  temperature?: number;
  top_p?: number;
  seed?: number;
  count?: number;
  taken?: number[];
  ids?: number[];
  messages?: ChatMessage[];
  retries?: number;
}

/** How far a piece of work is. */
export interface ProgressOf {
  doing: string;
  done: number;
  of: number;
}

/** A line before the answer: how far it is. */
export interface Progress {
  progress: ProgressOf;
}

/** How many of this machine's cores other programs keep busy. */
export interface BusyWith {
  others: number;
  cores: number;
}

/** A line before the answer: other programs hold the processors, so the answer takes longer. */
export interface Busy {
  busy: BusyWith;
}

/** A next token with the model's own probability, before temperature and top-p. */
export interface Candidate {
  id: number;
  text: string;
  probability: number;
}

/** The token that was drawn, and the likeliest ones. */
export interface NewToken {
  id: number;
  text: string;
  probability: number;
  others: Candidate[];
}

/** A line before the answer to "chat": the next token. */
export interface TokenLine {
  token: NewToken;
}

/** What a model reads of a conversation before it answers. */
export interface ConversationTokens {
  ids: number[]; // its tokens, with those that the chat template writes
  dropped: number; // how many of the oldest exchanges do not fit the context
}

/** A line before the tokens of an answer in a conversation. */
export interface ConversationLine {
  conversation: ConversationTokens;
}

/** What went wrong, as one line that says what to do instead. */
export interface Failure {
  error: string;
}

/** A step, and one row of its batch. */
export interface StepAnswer {
  step: number;
  dtype: 'fp32' | 'bf16'; // of the run's matrix products. In bf16 both factors and the result are rounded to 8 bits
  proof: ProofAnswer;
  loss: number; // of the whole batch, nats per token
  grad_norm: number;
  clip_factor: number;
  applied: boolean;
  num_rows: number;
  num_targets: number;
  rows: RowSource[];
  parameters: ParameterAnswer[];
  row: number;
  row_loss: number | null; // of this row; None where the loss counts none of its tokens
  row_loss_after: number | null; // the same with the weights after the update
  adapted: AdaptedMatrixAnswer[]; // the matrices with an adapter, which are frozen; none for other runs
  tokens: StepToken[];
  parts: RowPart[]; // of the row, by what is trained; none for a run on plain text
  stream: StreamAnswer[];
}

/** A row of a batch and the documents in it. */
export interface RowSource {
  row: number;
  documents: string[];
}

/** A tensor of weights in one step, by the lengths of its parts. */
export interface ParameterAnswer {
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
}

/** A frozen matrix W with an adapter, which computes with W + scale B A, by the lengths of its parts. */
export interface AdaptedMatrixAnswer {
  name: string; // of the frozen parameter. up_name, down_name: the parameters B and A
  shape: number[];
  up_name: string;
  down_name: string;
  rank: number;
  scale: number;
  weight_norm: number;
  grad_norm: number; // of the gradient by W, which was not applied
  product_norm: number; // of scale B A, before the step
  share: number | null; // product_norm over weight_norm
  moved: number; // length of the change of scale B A in this step
}

/** A token of a row, and the loss of the same prediction with the weights after the update. */
export interface StepToken {
  position: number;
  read: string;
  likeliest: string;
  likeliest_probability: number;
  desired: string | null; // None where the loss does not count the prediction
  desired_probability: number | null;
  loss: number;
  loss_after: number | null;
}

/** Tokens of a row that belong together: an example, one of the two conversations of a pair, or padding. */
export interface RowPart {
  kind: 'example' | 'chosen' | 'rejected' | 'padding';
  first: number; // the position of the first
  trained: boolean[]; // for each token that is read, whether the loss counts its prediction
  last: string | null; // the token that is predicted after them and not read, such as an end of turn; None where none counts
}

/** The length of one activation's vector at each position of a row, and that of the error there. */
export interface StreamAnswer {
  name: string;
  norm: number[];
  grad_norm: number[];
}

/** One prediction of a step. */
export interface TokenAnswer {
  step: number;
  dtype: 'fp32' | 'bf16';
  row: number;
  position: number;
  context: string;
  desired: string | null;
  probability: number;
  rank: number;
  vocabulary: number;
  loss: number;
  guesses: GuessInStep[];
  logits: LogitsAnswer;
  stream: StreamAtToken[];
  proof: ProofAnswer;
}

/** A token that was predicted in a step: predicted, desired (1 or 0), and the error at its logit. */
export interface GuessInStep {
  token: string;
  probability: number;
  desired: number;
  error: number;
}

/** The two numbers of a loss in float64: loss = logsumexp - desired. */
export interface LogitsAnswer {
  logsumexp: number;
  desired: number | null;
}

/** The length of one activation's vector at a position, and that of the error there. */
export interface StreamAtToken {
  name: string;
  norm: number;
  grad_norm: number;
}

/** A neuron at one token of a step. */
export interface UnitAnswer {
  step: number;
  row: number;
  position: number;
  layer: string; // such as model.layers.1.mlp
  unit: number;
  read: string;
  desired: string | null;
  arithmetic: ArithmeticAnswer;
  error: ErrorAnswer;
  weight: WeightOfUnit;
  bias: BiasOfUnit | null;
  proof: ProofAnswer;
}

/** A neuron at one token: its sums, and its activation. */
export interface ArithmeticAnswer {
  gate: WeightedSum;
  up: WeightedSum | null;
  function: string;
  activation: number;
  difference: number;
}

/** One sum of a neuron: what it reads times its weights, plus its bias. */
export interface WeightedSum {
  terms: SumTerm[]; // the largest first
  bias: number | null;
  sum: number;
  forward_pass: number; // the sum that the forward pass had
  dtype: 'fp32' | 'bf16'; // values, weights and bias are as a product of this dtype read them
}

/** One input of a neuron times its weight. */
export interface SumTerm {
  input: number;
  value: number;
  weight: number;
  term: number;
}

/** The error at a neuron: each output weight times the error where it writes, summed, times the slope. */
export interface ErrorAnswer {
  outgoing: number[]; // (D,) the weights that it writes with, as the product read them
  arriving: number[]; // (D,) the error at the numbers that it writes to, likewise
  at_activation: number; // the sum of their products, as the backward pass had it
  slope: number; // how much the activation moves with the sum of the gate
  at_sum: number; // at_activation times slope, as the backward pass had it
}

/** One weight of a neuron, the pushes on it, and its update. */
export interface WeightOfUnit {
  input: number;
  name: string;
  index: number[];
  pushes: PushesAnswer;
  largest: PushAnswer[];
  step: WeightStepAnswer;
}

/** The pushes of all tokens of a batch on one weight: each is the token's error times its input. */
export interface PushesAnswer {
  up: number; // sum of the pushes below zero, which raise the weight
  down: number; // sum of the pushes above zero, which lower it
  up_count: number;
  down_count: number;
  size: number; // sum of their sizes
  rounded: number; // size of all that was rounded to make them
  total: number; // their sum
  gradient: number; // the same as the run had it
}

/** The push of one token on a weight. */
export interface PushAnswer {
  row: number;
  position: number;
  token_id: number;
  value: number;
  error: number;
  read: string;
  push: number;
}

/** The bias of a neuron and its update. */
export interface BiasOfUnit {
  name: string;
  index: number[];
  step: WeightStepAnswer;
}

/** A neuron along a text; `position` is where its activation is largest. */
export interface NodeInTextAnswer {
  layer: string;
  unit: number;
  tokens: string[];
  activation: number[];
  promoted: TokenEffect[];
  suppressed: TokenEffect[];
  position: number;
  arithmetic: ArithmeticAnswer;
}

/** What one unit of a neuron's activation adds to a token's logit, over the mean of the vocabulary. */
export interface TokenEffect {
  token: string;
  value: number;
}

/** How much each token of a text supports the most likely next token. */
export interface AttributionAnswer {
  token: string;
  logit: number;
  gradient_times_input: number[];
  ablation: number[];
}

/** A text read at checkpoints. */
export interface StoryAnswer {
  tokens: string[];
  steps: number[];
  losses: ((number | null)[])[]; // (steps, tokens - 1)
  likeliest: LikeliestToken[][]; // at every step, behind every token but the last
}

/** The likeliest next token. */
export interface LikeliestToken {
  text: string;
  probability: number;
}

/** A neuron at a step: its weights, what activates it, what it promotes, and its history. */
export interface NodeAnswer {
  step: number;
  layer: string;
  unit: number;
  weights: number[];
  bias: number | null;
  up_weights: number[] | null;
  up_bias: number | null;
  outgoing: number[];
  gradient: NodeGradient | null; // None after the last recorded step
  promoted: TokenEffect[];
  suppressed: TokenEffect[];
  most: Passage[];
  least: Passage[];
  share_active: number;
  dead: boolean;
  arithmetic: ArithmeticAnswer;
  history: Moment[]; // at every checkpoint, over the same sample of held-out text
  came_alive: number | null;
  died: number | null;
  proof: ProofAnswer;
}

/** The gradient of a neuron's weights in the next step. */
export interface NodeGradient {
  weights: number[];
  bias: number | null;
  outgoing: number[];
}

/** A token of the held-out text with a neuron's activation there. */
export interface Passage {
  value: number;
  before: string;
  token: string;
  after: string;
  place: number;
  document: string;
  token_ids: number[]; // all that the network had read there, the token itself last
}

/** A neuron at a checkpoint: its activation over held-out text, and the lengths of its weights. */
export interface Moment {
  step: number;
  mean: number;
  std: number;
  max: number;
  share_active: number;
  norm_in: number;
  norm_up: number | null;
  norm_out: number;
}

/** A text read by the network and by a copy whose knobs are turned. */
export interface CompareAnswer {
  where: string;
  tokens: string[];
  knobs: string[];
  losses_before: number[];
  losses_after: number[];
  divergence: number[];
  next: NextToken[];
}

/** The probability of a next token without and with the knobs. */
export interface NextToken {
  token: string;
  before: number;
  after: number;
}

/** The answer to each look. */
export interface Answers {
  step: StepAnswer;
  token: TokenAnswer;
  unit: UnitAnswer;
  weight: WeightAnswer;
  matrix: MatrixAnswer;
  rules: RulesAnswer;
  passages: PassagesAnswer;
  prompt: PromptAnswer;
  head: HeadPattern;
  layers: LayersAnswer;
  value: ValueAnswer;
  node_in_text: NodeInTextAnswer;
  attribution: AttributionAnswer;
  story: StoryAnswer;
  neurons: NeuronsAnswer;
  node: NodeAnswer;
  compare: CompareAnswer;
  versions: VersionsAnswer;
  fork: ForkAnswer;
  chat: ChatAnswer;
}

export type Look = keyof Answers;

/**
 * What the server says. Numbers come as JSON (a number that is not finite is null), large arrays as safetensors.
 *
 *   GET  api/runs                          RunLine[]
 *   GET  api/runs/NAME                     RunFacts
 *   GET  api/runs/NAME/rows?from=A,B       Rows: lines of metrics.jsonl and samples.jsonl behind byte offsets A and B
 *   POST api/runs/NAME/control             {action}: answers {}; only where RunFacts.control is true
 *   POST api/runs/NAME/doctor              Verdict[]: those of `etude doctor RUN`, after some seconds
 *   POST api/ask                           a Question; answers lines of JSON: any Progress and TokenLine, then Answer or Failure
 *   GET  api/tensors/KEY                   a file of safetensors, of which parts are asked for by Range
 *   GET  api/source?of=FILE:NAME           Source: a function or class of Etude's own code, as it is installed
 *
 * All of these need the token: opening the printed address exchanges it for a cookie. Without it they answer 401.
 * What is answered to each look stands in answers.ts.
 */

export interface RunLine {
  name: string;
  state: State;
  step: number;
  loss: number | null; // of its last step
  val_loss: number | null; // of its last evaluation
  bits_per_byte: number | null;
  changed: number; // seconds since 1970
}

/** running: lost when its heartbeat is old. */
export type State = 'not begun' | 'starting' | 'running' | 'lost' | 'finished' | 'stopped' | 'failed' | 'damaged' | 'unreadable';

export interface RunFacts {
  name: string;
  state: State;
  step: number;
  num_steps: number | null;
  reason: string; // why it ended
  heartbeat: number | null;
  now: number; // of the server's clock
  paused: boolean;
  control: boolean; // whether this page may pause it, and so on
  fork: boolean; // whether this page may write a run beside it
  schema_known: boolean;
  model: {
    family: 'llama' | 'qwen3' | 'gpt2' | 'mlp';
    layers: number;
    width: number; // D
    nodes: number; // F, of each MLP
    heads: number;
    kv_heads: number;
    vocabulary: number; // V
    context: number;
    activation: string;
    gated: boolean;
    biases: boolean;
    parameters: number;
    tied: boolean;
  } | null;
  optimizer: string;
  sources: string[];
  uniform_loss: number | null; // ln V, nats a token
  ladder: Rung[]; // earlier kinds of language model on the same held-out text, the weakest first
  checkpoints: number[];
  first_step: number; // that can be opened
  last_step: number;
  compiled: boolean;
}

export interface Rung {
  order: number; // 0: pure guessing; 1: how often each token comes; n: a token behind n - 1 others
  name: string;
  loss: number; // nats a token
  bits_per_byte: number;
}

export interface Rows {
  reset: boolean; // the record is another one than before: forget what was read
  cursor: string; // for the next request
  more: boolean; // there is more at once
  every: number; // of a long record only every so many-th step is sent; what else happened is all there
  metrics: MetricRow[];
  samples: SampleRow[];
}

export interface MetricRow {
  event: string; // step, eval, rung, summary, spike, left_out, checkpoint, length, micro_batch, checksum, end
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
  usual?: number;
  reason?: string;
  tensors?: Record<string, TensorNorms>;
  attention_entropy?: (number | null)[][];
  dead_units?: number[];
  seconds?: { batch: number; forward: number; backward: number; update: number };
}

export interface TensorNorms {
  weight_norm: number | null;
  grad_norm: number | null;
  update_norm: number | null;
  update_ratio: number | null;
}

export interface SampleRow {
  event: 'sample';
  step: number;
  prompt: string;
  text: string;
}

export type Look =
  | 'step' // -> StepAnswer:        step, row
  | 'token' // -> TokenAnswer:      step, row, position
  | 'unit' // -> UnitAnswer:        step, row, position, layer, unit, input
  | 'weight' // -> WeightAnswer:    step, name, index
  | 'matrix' // -> MatrixAnswer:    step, name, what, [rows]
  | 'rules' // -> RulesAnswer
  | 'passages' // -> PassagesAnswer
  | 'prompt' // -> PromptAnswer:    text, [step]
  | 'attribution' // -> AttributionAnswer: text, [step]
  | 'story' // -> StoryAnswer:      text, [steps]
  | 'neurons' // -> NeuronsAnswer:  step, layer, text
  | 'node' // -> NodeAnswer:        step, layer, unit
  | 'compare' // -> CompareAnswer:  text, [step], knobs
  | 'fork' // -> ForkAnswer:        step, knobs, name
  | 'chat'; // -> Token..., ChatAnswer: text, [step], temperature, top_p, seed, count, [taken]

export interface Question {
  run: string;
  look: Look;
  step?: number;
  row?: number;
  position?: number;
  layer?: number;
  unit?: number;
  input?: number;
  name?: string;
  index?: number[];
  what?: 'before' | 'gradient' | 'update' | 'after' | 'since_start';
  rows?: [number, number];
  text?: string;
  steps?: number[];
  knobs?: string[];
  temperature?: number;
  top_p?: number;
  seed?: number;
  count?: number;
  taken?: number[];
}

export interface Progress {
  progress: { doing: string; done: number; of: number };
}
export interface TokenLine {
  token: { id: number; text: string; probability: number; others: { id: number; text: string; probability: number }[] };
}
export interface Failure {
  error: string; // one line that says what to do instead
}
export interface Answer<T> {
  answer: T;
}

export interface Verdict {
  rule: string;
  severity: 'fine' | 'notice' | 'problem' | 'not judged';
  finding: string;
  statement: string; // of the rule
  advice: string;
}

export interface Source {
  file: string; // such as src/etude/train/step.py
  first_line: number;
  text: string;
}

export interface NamedSource extends Source {
  name: string;
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
  counting: number | null; // right by counting alone
  random: number | null; // right with random weights
  steps: number[];
  right: number[];
  low: number[];
  high: number[];
  probability: number[]; // of the right answer among the candidates, geometric mean
  exact: (number | null)[];
  independent: (number | null)[];
}

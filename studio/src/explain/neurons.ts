/** Beside the nodes: what one is, what it reads with, and when it speaks. */
import type { Concept } from './concept';
import { frac, lines, row, said, sub, sum, sup } from './mathml';

export const NEURONS: Concept[] = [
  {
    title: 'Node',
    picture:
      'A station of an assembly line. It takes what comes in on many belts, more of one and less of another, and puts one ' +
      'result on the belt to the next stations.',
    stops:
      'A station has a task that somebody gave it. A node has none: its task is whatever its weights make of it, and many nodes ' +
      'answer to several things that have nothing to do with each other.',
    words:
      'A node (or neuron) multiplies each number that it reads by a weight, adds the products and its bias, and passes the sum ' +
      'through an activation function. The result is its activation: one number for each place of the text. It then adds to ' +
      'the stream, once for each of its outgoing weights. In a gated model a node makes two sums: the gate decides how ' +
      'much of the other one passes.',
    maths: lines(
      row(sub('z', 'j'), '=', sum('i'), sub('w', 'ji'), sub('x', 'i'), '+', sub('b', 'j')),
      row(sub('a', 'j'), '=', 'f', '(', sub('z', 'j'), ')'),
      row(said('gated:'), sub('a', 'j'), '=', 'f', '(', sub('z', 'j'), ')', sub('u', 'j')),
    ),
    symbols: 'x: what the node reads. w: its weights. b: its bias. z: the sum. f: activation function. a: activation. u: in a gated model, the second sum.',
    code: ['model/layers.py:PlainMLP.forward', 'model/layers.py:GatedMLP.forward', 'watch/terms.py:node_sum'],
  },
  {
    title: 'Weight',
    picture: 'A volume control on one wire into the node: turned up, the node listens closely; turned to zero, not at all.',
    stops:
      'A volume cannot go below zero. A weight can, and then it turns the sound upside down: what speaks for becomes what speaks against.',
    words:
      'A weight is one number: how much an input counts for a node. Positive: the input raises the sum. Negative: it lowers ' +
      'it. What matters in a place of the text is the product of weight and input; a large weight on a quiet wire does little. ' +
      'Almost all numbers of a model are weights, and learning is nothing but moving them. You may turn one here, in a ' +
      'copy, and see how the prediction moves.',
    maths: lines(
      row('term', '=', sub('w', 'ji'), '·', sub('x', 'i')),
      row(frac(row('∂', sub('z', 'j')), row('∂', sub('x', 'i'))), '=', sub('w', 'ji')),
    ),
    symbols: 'w: the weight from input i to node j. x: the input. z: the node’s sum.',
    code: ['watch/terms.py:WeightedSum.terms', 'watch/knobs.py:compare', 'watch/arithmetic.py:weight_step'],
  },
  {
    title: 'Bias',
    picture: 'A thermostat: it says how cold it must be before the heating starts.',
    stops: 'Nobody sets this thermostat. It begins at zero, and training moves it like any weight.',
    words:
      'The bias is a number that is added to the sum whatever the inputs are. It shifts the point at which a node begins to ' +
      'answer. A node with a low bias keeps quiet unless its inputs insist; one with a high bias speaks unless it is stopped. ' +
      'Many large models leave the biases out and are hardly worse for it. Where this run has none, the page says so.',
    maths: row('z', '=', sum('i'), sub('w', 'i'), sub('x', 'i'), '+', 'b', '>', '0', '⇔', sum('i'), sub('w', 'i'), sub('x', 'i'), '>', '−', 'b'),
    symbols: 'b: the bias. The sum must come above −b for z to be positive.',
    code: ['model/layers.py:PlainMLP', 'watch/terms.py:WeightedSum.total', 'model/init.py:init_table'],
  },
  {
    title: 'Activation function',
    picture: 'A doorkeeper between the sum and the rest of the house: who brings enough comes in, who does not is kept out.',
    stops: 'Most doors here are soft: a little below the threshold something still gets through, even with the sign turned.',
    words:
      'The activation function bends the sum of a node. Without a bend, any number of layers would be no more than one ' +
      'product of matrices. ReLU lets what is positive pass and makes the rest zero; SiLU and GELU are the same with a round ' +
      'corner; tanh presses everything between minus one and one. Its slope matters for learning: an error comes back through ' +
      'a node only times this slope.',
    maths: lines(
      row('relu', '(', 'z', ')', '=', 'max', '(', '0', ',', 'z', ')'),
      row('silu', '(', 'z', ')', '=', frac('z', row('1', '+', sup('e', row('−', 'z'))))),
      row('gelu', '(', 'z', ')', '=', 'z', 'Φ', '(', 'z', ')'),
    ),
    symbols: 'z: the sum. Φ: the share of a normal distribution below z.',
    code: ['model/layers.py:make_mlp', 'model/layers.py:_gelu_tanh', 'watch/reconciliation.py:activation_of'],
  },
  {
    title: 'Dead node',
    picture: 'A bell whose rope is torn: one may pull at it all day, it does not ring, and nobody who only listens can tell why.',
    stops: 'A bell stays broken. A silent node may wake again, as long as a little error still reaches it or its inputs change.',
    words:
      'A node is dead when it does nothing at any token that was looked at. On this page that means: it never adds more than a ' +
      'vanishing share of the length of what it is added to. In the curve of a whole run it means: it stood at the flat lower ' +
      'end of its activation function at every token. There the slope is next to zero, so next to no error comes back and its ' +
      'weights hardly move. A few dead nodes do no harm; many are wasted room, often from too high a learning rate.',
    maths: lines(
      row(frac(row('|', sub('a', 'j'), '|', '·', '|', sub('w', 'out'), '|'), row('|', 'stream', '|')), '≤', 'little'),
      row('slope', '≈', '0', '⇒', sub('δ', 'j'), '≈', '0'),
    ),
    symbols: 'a: activation. w out: the weights that the node writes with. stream: what it is added to. δ: the error at its sum.',
    code: ['watch/activity.py:Activity.dead', 'watch/saturation.py:ends', 'watch/activity.py:NodeHistory.came_alive'],
  },
];

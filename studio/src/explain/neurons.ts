/** Explanations beside the neurons: what a neuron is, what it reads with, and when it is active. */
import type { Concept } from './concept';
import { frac, lines, row, said, sub, sum, sup } from './mathml';

export const NEURONS: Concept[] = [
  {
    title: 'Neuron',
    picture:
      'A station of an assembly line takes parts from many belts, more from one and fewer from another, and puts one result ' +
      'on the belt to the next stations.',
    stops:
      'A station has an assigned task. A neuron has none: its weights decide what it does, and many neurons respond to ' +
      'several unrelated things.',
    words:
      'A node, or neuron, multiplies each of its input numbers by a weight, adds the products and its bias, and passes the ' +
      'sum through an activation function. The result is its activation: one number for each position of the text. The ' +
      'neuron then adds to the stream, through its outgoing weights. In a gated model a neuron computes two sums: the gate ' +
      'decides how much of the other one passes.',
    maths: lines(
      row(sub('z', 'j'), '=', sum('i'), sub('w', 'ji'), sub('x', 'i'), '+', sub('b', 'j')),
      row(sub('a', 'j'), '=', 'f', '(', sub('z', 'j'), ')'),
      row(said('gated:'), sub('a', 'j'), '=', 'f', '(', sub('z', 'j'), ')', sub('u', 'j')),
    ),
    symbols:
      'x: inputs of the neuron. w: its weights. b: its bias. z: the sum. f: activation function. a: activation. u: the ' +
      'second sum of a gated model.',
    code: ['model/layers.py:PlainMLP.forward', 'model/layers.py:GatedMLP.forward', 'watch/terms.py:node_sum'],
  },
  {
    title: 'Weight',
    picture: 'A volume control on one wire into the neuron: turned up, the wire is loud; turned to zero, it is silent.',
    stops: 'A volume cannot go below zero. A weight can, and then it reverses the effect: a high input lowers the sum.',
    words:
      'A weight is one number: how much an input counts for a neuron. A positive weight raises the sum with its input; a ' +
      'negative one lowers it. What counts at a position is the product of weight and input: a large weight with a small ' +
      'input does little. Almost all numbers of a model are weights, and learning means moving them. You can change a weight ' +
      'here, in a copy of the network, and see how the prediction changes.',
    maths: lines(
      row('term', '=', sub('w', 'ji'), '·', sub('x', 'i')),
      row(frac(row('∂', sub('z', 'j')), row('∂', sub('x', 'i'))), '=', sub('w', 'ji')),
    ),
    symbols: 'w: the weight from input i to neuron j. x: the input. z: the neuron’s sum.',
    code: ['watch/terms.py:WeightedSum.terms', 'watch/knobs.py:compare', 'watch/arithmetic.py:weight_step'],
  },
  {
    title: 'Bias',
    picture: 'A thermostat sets how cold it must be before the heating starts.',
    stops: 'Nobody sets this thermostat. It begins at zero, and training moves it like any weight.',
    words:
      'The bias is a number that is added to the sum, whatever the inputs are. It shifts the point at which a neuron ' +
      'activates. A neuron with a low bias stays inactive unless its inputs are strong; one with a high bias is active ' +
      'unless its inputs stop it. Many large models have no biases and are hardly worse. If this run has none, the page says ' +
      'so.',
    maths: row('z', '=', sum('i'), sub('w', 'i'), sub('x', 'i'), '+', 'b', '>', '0', '⇔', sum('i'), sub('w', 'i'), sub('x', 'i'), '>', '−', 'b'),
    symbols: 'b: the bias. The rest of the sum must be above −b for z to be positive.',
    code: ['model/layers.py:PlainMLP', 'watch/terms.py:WeightedSum.total', 'model/init.py:init_table'],
  },
  {
    title: 'Activation function',
    picture: 'A doorkeeper stands between the sum and the rest of the house: large sums come in, small ones stay out.',
    stops:
      'Most doors here are soft: a little below the threshold something still gets through, even with the opposite sign.',
    words:
      'The activation function bends the sum of a neuron. Without it, any number of layers would equal a single product of ' +
      'matrices. ReLU passes positive numbers and makes the rest zero; SiLU and GELU do the same with a round corner; tanh ' +
      'presses everything between minus one and one. Its slope matters for learning: an error that comes back through a ' +
      'neuron is multiplied by this slope.',
    maths: lines(
      row('relu', '(', 'z', ')', '=', 'max', '(', '0', ',', 'z', ')'),
      row('silu', '(', 'z', ')', '=', frac('z', row('1', '+', sup('e', row('−', 'z'))))),
      row('gelu', '(', 'z', ')', '=', 'z', 'Φ', '(', 'z', ')'),
    ),
    symbols: 'z: the sum. Φ: the share of a normal distribution below z.',
    code: ['model/layers.py:make_mlp', 'model/layers.py:_gelu_tanh', 'watch/reconciliation.py:activation_of'],
  },
  {
    title: 'Dead neuron',
    picture: 'A bell whose rope is torn: you can pull all day, and it does not ring.',
    stops:
      'A torn rope stays torn. A dead neuron can become active again, as long as a little error still reaches it or its ' +
      'inputs change.',
    words:
      'A neuron is dead if it does nothing at any token of a sample. On this page that means: it never adds more than a tiny ' +
      'share of the length of what it is added to. In the curve of a whole run it means: at every token it was at the flat ' +
      'lower end of its activation function. There the slope is almost zero, so almost no error comes back and its weights ' +
      'hardly move. A few dead neurons do no harm. Many are wasted capacity, often because the learning rate is too high.',
    maths: lines(
      row(frac(row('|', sub('a', 'j'), '|', '·', '|', sub('w', 'out'), '|'), row('|', 'stream', '|')), '≤', 'little'),
      row('slope', '≈', '0', '⇒', sub('δ', 'j'), '≈', '0'),
    ),
    symbols:
      'a: activation. w out: the weights that the neuron writes with. stream: what it is added to. δ: the error at its sum.',
    code: ['watch/activity.py:Activity.dead', 'watch/saturation.py:ends', 'watch/activity.py:NodeHistory.came_alive'],
  },
];

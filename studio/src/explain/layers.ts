/** Beside the layers: what flows up, what flows back, and what is moved. */
import type { Concept } from './concept';
import { frac, lines, row, said, slope, sub, sum } from './mathml';

export const LAYERS: Concept[] = [
  {
    title: 'Residual stream and layers',
    picture:
      'A manuscript is passed around an editorial office. Each editor reads what is on the page and writes remarks into the ' +
      'margin. Nobody may remove a page. At the end the manuscript has everyone’s remarks.',
    stops:
      'There are no separate margins: all remarks are added into the same numbers, so they can drown out or even cancel each ' +
      'other.',
    words:
      'At every position of the text the model keeps one vector, the residual stream. Each layer reads it twice and adds to ' +
      'it twice: first its attention, then its neurons (the MLP). Before each reading a norm scales the vector to a usual ' +
      'length. The bars show how long the vector is after each layer, and how much each part added. Because layers only add, ' +
      'the error has a direct way back through all of them.',
    maths: lines(
      row('mid', '=', 'pre', '+', 'attn', '(', 'norm', '(', 'pre', ')', ')'),
      row('post', '=', 'mid', '+', 'mlp', '(', 'norm', '(', 'mid', ')', ')'),
    ),
    symbols:
      'pre, mid, post: the residual stream before a layer, between its two parts, and after it. (The mlp family has one ' +
      'layer of neurons and no stream.)',
    code: ['model/transformer.py:Block.forward', 'model/layers.py:RMSNorm.forward'],
  },
  {
    title: 'The error on its way back',
    picture:
      'Water runs down a staircase of pools. Now it is pumped up again, and the strength of the current is measured at each ' +
      'pool.',
    stops:
      'What comes back is not the signal but another quantity: how much the loss would change for a small change of each ' +
      'number.',
    words:
      'Every number of the forward pass has a gradient in the backward pass. Long bars mean that small changes there would ' +
      'change the loss a lot. If the bars shrink to almost nothing towards the first layer, the early layers learn nothing ' +
      '(the gradient vanishes). If they grow without limit, training breaks (it explodes). Norms and the residual stream ' +
      'help to prevent both.',
    maths: lines(
      row(slope('L', 'pre'), '=', slope('L', 'post'), '+', said('by way of the layer')),
      row('|', 'δ', '|', '=', '<msqrt><mrow><munder><mo>∑</mo><mi>i</mi></munder><msubsup><mi>δ</mi><mi>i</mi><mn>2</mn></msubsup></mrow></msqrt>'),
    ),
    symbols:
      'L: loss. δ: the error at one position, one number for each number of the stream. |δ|: its length, which is the bar.',
    code: ['watch/opened_step.py:OpenedStep.row', 'watch/tapped_forward.py:run_with_taps'],
  },
  {
    title: 'Matrix of weights',
    picture: 'A mixing desk has one row of volume controls for each neuron, and one column for each input.',
    stops: 'On a mixing desk each column has a label. Here the columns have none: what they carry is itself learned.',
    words:
      'The weights of a whole group of neurons are stored in one matrix: a row for each neuron, a column for each input. One ' +
      'product of the matrix and a vector computes all their weighted sums at once, which computers do fast. Before ' +
      'training, weights are random numbers of a chosen size, or zero, so the picture is noise. The change since the start ' +
      'shows structure that the weights themselves hide.',
    maths: lines(
      row('z', '=', 'W', 'x', '+', 'b'),
      row(sub('z', 'j'), '=', sum('i'), sub('W', 'ji'), sub('x', 'i'), '+', sub('b', 'j')),
    ),
    symbols: 'W: the matrix. x: its input. b: biases, if the model has them. j: a row, one neuron. i: a column, one input.',
    code: ['model/layers.py:PlainMLP.forward', 'model/layers.py:GatedMLP.forward', 'model/init.py:init_table'],
  },
  {
    title: 'How far the weights move',
    picture:
      'A step of ten centimetres is nothing for a grown-up and a long way for a beetle. So compare a step with the size of ' +
      'the walker.',
    stops:
      'A matrix has more than one size: some of its rows may move a lot while the ratio of the whole matrix looks calm.',
    words:
      'The length of an update is shown as a share of the length of the weights that it moves. That makes tensors of any ' +
      'size comparable. If the share is much too small, a tensor hardly learns. If it is much too large, the tensor forgets ' +
      'in one step what it knew. The share is usually high at the beginning of a run and falls with the learning rate. Look ' +
      'closer at a tensor whose share differs a lot from the others.',
    maths: row('ratio', '=', frac(row('|', sub('W', 'after'), '−', sub('W', 'before'), '|'), row('|', sub('W', 'before'), '|'))),
    symbols: '|·|: length, the root of the sum of all squares. W: one tensor of weights.',
    code: ['watch/summaries.py:tensor_norms', 'train/rules/applied.py:ParameterUpdate.update'],
  },
];

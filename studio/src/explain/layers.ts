/** Beside the layers: what flows up, what flows back, and what is moved. */
import type { Concept } from './concept';
import { frac, lines, row, said, slope, sub, sum } from './mathml';

export const LAYERS: Concept[] = [
  {
    title: 'Residual stream and layers',
    picture:
      'A manuscript goes round an editorial office. Each desk reads what is on the page so far and writes its remarks into the ' +
      'margin; nobody may tear a page out. What comes back at the end is the text with all remarks.',
    stops:
      'There are no separate margins: all remarks are added into the same numbers, so they can drown, or even cancel, each other.',
    words:
      'At every place of the text the model keeps one vector, the residual stream. Each layer reads it twice and adds to it ' +
      'twice: first its attention, then its nodes (the MLP). Before each reading a norm brings the vector to a usual length, ' +
      'so that no layer hears only the loudest. The bars show how long the vector is after each layer, and how much ' +
      'each part added. Since layers only add, the error finds a straight way back through all of them.',
    maths: lines(
      row('mid', '=', 'pre', '+', 'attn', '(', 'norm', '(', 'pre', ')', ')'),
      row('post', '=', 'mid', '+', 'mlp', '(', 'norm', '(', 'mid', ')', ')'),
    ),
    symbols: 'pre, mid, post: the residual stream before a layer, between its two parts, and behind it. (The mlp family has one layer of nodes and no stream.)',
    code: ['model/transformer.py:Block.forward', 'model/layers.py:RMSNorm.forward', 'watch/forward.py:run_block'],
  },
  {
    title: 'The error on its way back',
    picture: 'Water that went down a stair of pools is pumped up again, and at each pool one reads off how strong the current is.',
    stops: 'It is not the signal that comes back but another quantity: how much the loss would change for a small change of each number.',
    words:
      'For every number that went forward there is one that comes back: its gradient. Long bars mean that small changes there ' +
      'would change the loss much. If the bars shrink to almost nothing towards the first layer, early layers learn nothing ' +
      '(the gradient vanishes); if they grow without end, training breaks (it explodes). Norms and the stream that only ' +
      'adds are there to prevent both.',
    maths: lines(
      row(slope('L', 'pre'), '=', slope('L', 'post'), '+', said('by way of the layer')),
      row('|', 'δ', '|', '=', '<msqrt><mrow><munder><mo>∑</mo><mi>i</mi></munder><msubsup><mi>δ</mi><mi>i</mi><mn>2</mn></msubsup></mrow></msqrt>'),
    ),
    symbols: 'L: loss. δ: the error at one place of the text, one number for each of the stream. |δ|: its length, the bar.',
    code: ['watch/opened.py:OpenedStep.row', 'watch/forward.py:run_with_taps'],
  },
  {
    title: 'Matrix of weights',
    picture: 'A mixing desk: one row of volume controls for each node, one column for each thing that it listens to.',
    stops: 'On a mixing desk each row is labelled; here nobody named the columns, and what they carry is itself learnt.',
    words:
      'The weights of a whole group of nodes stand in one matrix: a row for each node, a column for each input. One product of ' +
      'matrix and vector does all their weighted sums at once, which is what computers are fast at. Before training the ' +
      'weights are random numbers of a chosen size (or zero), so the picture is noise. Look at the change since the start: ' +
      'there structure shows that the weights themselves hide.',
    maths: lines(
      row('z', '=', 'W', 'x', '+', 'b'),
      row(sub('z', 'j'), '=', sum('i'), sub('W', 'ji'), sub('x', 'i'), '+', sub('b', 'j')),
    ),
    symbols: 'W: the matrix. x: what it reads. b: biases, where the model has them. j: row, one node. i: column, one input.',
    code: ['model/layers.py:PlainMLP.forward', 'model/layers.py:GatedMLP.forward', 'model/init.py:init_table'],
  },
  {
    title: 'How far the weights move',
    picture: 'A step of a hand’s breadth is nothing for a grown-up and a fall for a beetle. So measure steps by the one who walks.',
    stops: 'A matrix has no one size: some of its rows may move much while the ratio of the whole looks calm.',
    words:
      'The length of an update is told as a share of the length of the weights that it moves. It makes tensors of any size ' +
      'comparable. Much too small, and a tensor hardly learns; much too large, and it forgets in one step what it knew. It ' +
      'is usually high at the beginning of a run and falls with the learning rate. A tensor whose share is far from the ' +
      'others’ is worth a look.',
    maths: row('ratio', '=', frac(row('|', sub('W', 'after'), '−', sub('W', 'before'), '|'), row('|', sub('W', 'before'), '|'))),
    symbols: '|·|: length, the root of the sum of all squares. W: one tensor of weights.',
    code: ['watch/summaries.py:tensor_norms', 'train/rules/applied.py:ParameterUpdate.update'],
  },
];

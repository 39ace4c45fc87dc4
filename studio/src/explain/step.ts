/** Explanations beside one step: forward, the error, backward, the update. */
import type { Concept } from './concept';
import { frac, lines, row, slope, sub, sum, sup } from './mathml';

export const STEP: Concept[] = [
  {
    title: 'Forward propagation',
    picture:
      'A piece of work travels down an assembly line. At the start it is only a token. Each station reads what the others ' +
      'have added, adds something of its own and passes the piece on. At the end of the line the piece is a list of bets on ' +
      'the next token.',
    stops: 'No station has a fixed job: its weights decide what it does, and every step of training changes them.',
    words:
      'Each token is looked up in a table and becomes a list of numbers, its vector. Layer after layer adds to the vector: ' +
      'attention brings in information from earlier positions, then the neurons work on each position by itself. The last ' +
      'vector is multiplied by the output matrix, which gives one number for each token of the vocabulary, a logit. Softmax ' +
      'turns the logits into probabilities: a larger logit gets a larger share, and all shares add up to one. All positions ' +
      'of a text are predicted in one pass, each from the tokens up to it.',
    maths: lines(
      row(sub('r', '0'), '=', 'E', '[', 'token', ']'),
      row(sub('r', row('l', '+', '1')), '=', sub('r', 'l'), '+', sub('f', 'l'), '(', sub('r', 'l'), ')'),
      row('z', '=', 'W', 'norm', '(', sub('r', 'end'), ')'),
      row(sub('p', 'v'), '=', frac(sup('e', sub('z', 'v')), row(sum('u'), sup('e', sub('z', 'u'))))),
    ),
    symbols:
      'E: the table of token vectors. r: the vector at one position. f: what layer l adds. W: the output matrix. z: the ' +
      'logits. (The mlp family has one layer of neurons instead.)',
    code: ['model/transformer.py:Decoder.forward', 'model/transformer.py:Block.forward', 'model/language_model.py:LanguageModel.forward'],
  },
  {
    title: 'Error signal',
    picture:
      'Put two drawings on top of each other and hold them against the light: the predicted bars and the desired bars. What ' +
      'sticks out must shrink, what is missing must grow.',
    stops:
      'The desired drawing has a single bar, a full hundred per cent for the token that came. Other tokens might have been ' +
      'just as good, but the loss does not know that.',
    words:
      'The desired output is the token that really came next: probability one for it, zero for all others. Predicted minus ' +
      'desired is the first error signal. It is the gradient of the loss at the logits: every wrong token is pushed down by ' +
      'the probability that it was given, and the right one is pushed up by the probability that it lacked. These pushes add ' +
      'up to zero. The whole backward pass begins with this list of numbers.',
    maths: lines(
      row(slope('ℓ', sub('z', 'v')), '=', sub('p', 'v'), '−', sub('y', 'v')),
      row(sum('v'), '(', sub('p', 'v'), '−', sub('y', 'v'), ')', '=', '0'),
    ),
    symbols:
      'ℓ: loss of the token. z: logits. p: predicted. y: desired, one for the token that came and zero elsewhere. The loss ' +
      'of the batch is a mean, so each error is divided by its N tokens.',
    code: ['train/loss.py:_LossInPieces.forward'],
  },
  {
    title: 'Backpropagation',
    picture:
      'A detective starts at the scene, the wrong bet, and goes back along the line. The question at every station is the ' +
      'same: how much did you add to this, and where did you get it from? The blame is split and carried further back, to ' +
      'the first station.',
    stops:
      'Nothing is guessed: every share of blame is an exact product of numbers from the forward pass, and you can check it ' +
      'on this page.',
    words:
      'The chain rule: if one number moves a second, and the second moves the loss, then the effect of the first on the loss ' +
      'is the product of the two. So the error of a neuron is the sum of the errors after it, each times the weight that ' +
      'leads there, then times the slope of its activation function. This error times an input is the push of one token on ' +
      'one weight. Every token of the batch pushes every weight, some up, some down: a tug of war. The gradient is the sum ' +
      'of all pushes, and most of them cancel.',
    maths: lines(
      row(slope('L', sub('a', 'j')), '=', sum('k'), sub('w', 'kj'), sub('δ', 'k')),
      row(sub('δ', 'j'), '=', slope('L', sub('a', 'j')), '·', '<mrow><msup><mi>f</mi><mo>′</mo></msup></mrow>', '(', sub('z', 'j'), ')'),
      row(slope('L', sub('w', 'ji')), '=', sum('n'), sub('δ', 'jn'), sub('x', 'in')),
    ),
    symbols:
      'j: the neuron; k: what it writes to; i: what it reads. δ: an error. a: activation; z: the sum before it; f′: the ' +
      'slope there. n: the tokens of the batch, the two sides of the tug of war.',
    code: ['train/step.py:batch_gradient', 'watch/layer_in_step.py:LayerInStep.error', 'watch/layer_in_step.py:LayerInStep.gradient_terms'],
  },
  {
    title: 'Weight update',
    picture:
      'Every weight is a volume control with a note on it: a little up, or a little down. All controls are turned at once, ' +
      'each by its note. Before that, a limit makes sure that the notes together do not ask for too wild a turn.',
    stops:
      'Thousands or billions of controls turn at once, each as if the others stood still. That only works for small turns, ' +
      'which is why they must be small.',
    words:
      'A weight moves against its gradient, because the gradient points to more loss. Clipping comes first: if the gradient ' +
      'of all weights together is too long, all of it is shortened by one factor. Then an update rule computes a direction ' +
      'from the gradient and from what it remembers of earlier gradients. The page shows which rule moved a weight, and the ' +
      'rules of the run are explained below. The learning rate sets how far a weight moves; it rises at the beginning of a ' +
      'run and falls towards its end. Weight decay pulls the weights of matrices a little towards zero.',
    maths: lines(
      row('g', '←', 'g', '·', 'min', '(', '1', ',', frac('c', row('|', 'g', '|')), ')'),
      row('d', '=', 'rule', '(', 'g', ',', 'memory', ')'),
      row('w', '←', 'w', '−', 'η', 'λ', 'w', '−', 'η', 'd'),
    ),
    symbols:
      'g: gradient. c: the longest gradient that is allowed. d: the direction that the rule computes. η: learning rate. λ: ' +
      'weight decay.',
    code: ['train/step.py:apply_gradient', 'train/step.py:clip_gradients', 'train/optimizer.py:UpdateRules.step', 'train/schedule.py:lr_factor'],
  },
];

/** Explanations beside the curve: what a language model is, what its loss means, and what it is compared with. */
import type { Concept } from './concept';
import { frac, lines, product, row, said, sub, sum } from './mathml';

export const LIVE: Concept[] = [
  {
    title: 'Language model',
    picture:
      'You read a story aloud and stop before every word. A friend bets on what comes: not on one word, but by spreading a ' +
      'purse of coins over all words. The better the friend knows the language, the more coins lie on the word that you then ' +
      'read.',
    stops:
      'The friend knows what the story is about; the model has only numbers, it bets on tokens rather than words, and it ' +
      'must lay at least a crumb on each of them, every time.',
    words:
      'A language model gives every token of its vocabulary a probability of coming next, given the tokens before. The ' +
      'probabilities add up to one. This one skill does several jobs. Multiply the probabilities along a text, and you know ' +
      'how likely the model finds it: scoring. Choose a token, add it to the text and predict again: writing. Put words of ' +
      'your own in front, and they influence what follows: prompting.',
    maths: lines(
      row('p', '=', 'P', '(', sub('x', row('t', '+', '1')), '|', sub('x', '1'), '…', sub('x', 't'), ')'),
      row(sum('v'), sub('p', 'v'), '=', '1'),
      row('P', '(', 'text', ')', '=', product('t'), 'P', '(', sub('x', 't'), '|', sub('x', '1'), '…', ')'),
    ),
    symbols:
      'x with a number: the token at that position. p: the prediction, one probability for each token v of the vocabulary.',
    code: ['model/language_model.py:LanguageModel.forward', 'generate/language.py:Language.score'],
  },
  {
    title: 'Loss',
    picture:
      'Loss is surprise. If you had laid all your coins on the word that came, you would not be surprised at all. The fewer ' +
      'coins lay there, the greater the surprise.',
    stops:
      'Surprise has no upper end here: halving the coins always adds the same amount, so a word without any coin would cost ' +
      'more than any number.',
    words:
      'The loss of one token is minus the natural logarithm of the probability that the model gave to the token that came. ' +
      'Its unit is the nat. The loss of a step is the mean over all tokens of its batch. Two comparisons give the number a ' +
      'meaning. A model that knows nothing gives all V tokens of the vocabulary the same probability, and its loss is ln V: ' +
      'that is the line of pure guessing. And exp(loss) turns a loss back into a choice: the model is as unsure as if it had ' +
      'to pick among so many equally likely tokens.',
    maths: lines(
      row('ℓ', '=', '−', 'ln', sub('p', 'desired')),
      row('L', '=', frac('1', 'N'), sum('n'), sub('ℓ', 'n')),
      row(sub('p', 'v'), '=', frac('1', 'V'), '⇒', 'ℓ', '=', 'ln', 'V'),
      row('exp', '(', 'L', ')', '=', said('equal choices')),
    ),
    symbols: 'ℓ: loss of one token. L: mean over the N tokens of a batch. V: tokens in the vocabulary.',
    code: ['train/loss.py:token_losses', 'train/loss.py:summed_loss'],
  },
  {
    title: 'Training loop',
    picture:
      'A player throws a ball at a basket, sees where it lands, works out what was wrong with the throw, changes the arm a ' +
      'little, and throws again. After thousands of throws the ball goes in.',
    stops:
      'The model makes the throws of a whole batch at once and follows the sum of their corrections, most of which cancel; ' +
      'and it keeps no memory of any single throw.',
    words:
      'One step is one lap of the loop. Take a batch of text. Predict every next token in it (forward). Compare with the ' +
      'tokens that came (loss). Compute how each weight contributed to the error (backward). Move every weight a little ' +
      '(update). Then comes the next batch. Between laps the loop scores held-out text, lets the model write a sample, or ' +
      'saves a checkpoint. Nothing else happens in training. Everything that the model can do came from such laps.',
    maths: lines(
      row(sub('g', 's'), '=', sub('∇', 'θ'), 'L', '(', sub('θ', 's'), ',', sub('batch', 's'), ')'),
      row(sub('θ', row('s', '+', '1')), '=', sub('θ', 's'), '+', 'update', '(', sub('g', 's'), ')'),
    ),
    symbols: 'θ: all weights and biases. s: the step. g: the gradient, which shows how the loss changes with each of them.',
    code: ['train/loop.py:Loop.run', 'train/loop.py:make_step', 'train/step.py:update_step'],
  },
  {
    title: 'Held-out text (validation)',
    picture:
      'A pupil is tested with questions that were not in the exercise book. That exposes a pupil who has only memorised the ' +
      'answers.',
    stops:
      'The test is no stranger than the exercises: it was cut from the same text, so it shows little about texts of another ' +
      'kind.',
    words:
      'A part of the text is set aside before training, and no weight is ever moved by it. Its loss shows what the model has ' +
      'understood, not what it remembers. While both curves fall together, the model learns the language of the text. If the ' +
      'training loss continues to fall and the validation loss rises, the model begins to memorise. The same loss in bits ' +
      'per byte of text can be compared between models that cut text into different tokens.',
    maths: lines(
      row('L', '=', frac('1', 'M'), sum('m'), sub('ℓ', 'm')),
      row('bits', '=', frac(row(sum('m'), sub('ℓ', 'm')), row('ln', '2', '·', 'bytes'))),
    ),
    symbols: 'The sums run over the M held-out tokens. Bits: bits per byte. Bytes: the length of the held-out text.',
    code: ['train/validation.py:ValidationText.score'],
  },
  {
    title: 'The rungs: models that only count',
    picture:
      'A ladder stands beside the curve. On each rung sits a clerk with a tally book, who has counted how often each letter ' +
      'came after the letters before it. The clerk on the first rung looks at no earlier letter, the next at one, and so on.',
    stops:
      'A clerk cannot see that two words are alike, and a higher rung need not be better: in a small text a long row of ' +
      'letters has hardly ever occurred before.',
    words:
      'An n-gram model is the kind of language model that came before neural networks. It counts how often a byte followed ' +
      'the n − 1 bytes before it. (In plain English text a byte is a letter, a space or a mark.) If it has seen too little, ' +
      'it uses the next shorter row; the best way to mix the two is named after Kneser and Ney. Each rung is such a model of ' +
      'the same text, scored on the same held-out part. When your model passes a rung, it knows something that counting so ' +
      'far back cannot show.',
    maths: lines(
      row('P', '(', 'w', '|', 'h', ')', '='),
      row(frac(row('max', '(', 'c', '(', 'h', 'w', ')', '−', 'd', ',', '0', ')'), row('c', '(', 'h', ')'))),
      row('+', 'γ', '(', 'h', ')', 'P', '(', 'w', '|', 'shorter', ')'),
    ),
    symbols: 'w: the next byte. h: those before it. c: how often seen. d: a small discount. γ: what the discounts leave for the shorter row.',
    code: ['evaluate/ladder.py:build_ladder', 'run/ladder.py:Ladder.passed', 'evaluate/ngram.py:Smoothed.interpolate'],
  },
];

/** Beside the curve: what a language model is, what its loss means, and what it is held against. */
import type { Concept } from './concept';
import { frac, lines, product, row, said, sub, sum } from './mathml';

export const LIVE: Concept[] = [
  {
    title: 'Language model',
    picture:
      'Someone reads a story aloud and stops before every word. A friend bets on what comes: not on one word, but by ' +
      'spreading a purse of coins over all the words that there are. The better the friend knows the language, the more ' +
      'coins lie on the word that is then read.',
    stops:
      'The friend knows what the story is about; the model has only numbers, it bets on tokens rather than words, and it ' +
      'must lay at least a crumb on each of them, every time.',
    words:
      'A language model gives every token of its vocabulary a probability of coming next, given the tokens before. The ' +
      'probabilities add up to one. This one skill does several jobs. Multiply the probabilities along a text, and you ' +
      'know how likely the model finds it: scoring. Choose a token, add it to the text and ask again: writing. Put words ' +
      'of your own in front, and what follows leans on them: prompting.',
    maths: lines(
      row('p', '=', 'P', '(', sub('x', row('t', '+', '1')), '|', sub('x', '1'), '…', sub('x', 't'), ')'),
      row(sum('v'), sub('p', 'v'), '=', '1'),
      row('P', '(', 'text', ')', '=', product('t'), 'P', '(', sub('x', 't'), '|', sub('x', '1'), '…', ')'),
    ),
    symbols: 'x with a number: the token at that place. p: the prediction, one probability for each token v of the vocabulary.',
    code: ['model/language_model.py:LanguageModel.forward', 'generate/language.py:Language.score'],
  },
  {
    title: 'Loss',
    picture:
      'Loss is surprise. Had you laid all your coins on the word that came, you would not be surprised at all. The fewer ' +
      'coins lay there, the more you are.',
    stops:
      'Surprise has no upper end here: halving the coins always adds the same amount, so a word that you had given no coin ' +
      'at all would cost more than any number.',
    words:
      'For one token the loss is minus the natural logarithm of the probability that the model had given to the token that ' +
      'came. Its unit is the nat. A step’s loss is the mean over all tokens of its batch. Two aids make the number speak. ' +
      'A model that knows nothing gives all V tokens of the vocabulary the same probability, and its loss is ln V: that is ' +
      'the line of pure guessing. And exp(loss) turns a loss back into a choice: the model is as unsure as if it had to ' +
      'pick among so many equally likely tokens.',
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
      'The model makes the throws of a whole batch at once and moves by what they ask for together, most of which cancels; ' +
      'and it keeps no memory of any single throw.',
    words:
      'One step is one lap of the loop. Take a batch of text. Predict every next token in it (forward). Compare with the ' +
      'tokens that came (loss). Work out how each weight had its share in the error (backward). Move every weight a little ' +
      '(update). Then comes the next batch. Between laps the loop does what is due: it scores held-out text, lets the model ' +
      'write a sample, saves a checkpoint. Nothing else happens in training. All that the model can do came from such laps.',
    maths: lines(
      row(sub('g', 's'), '=', sub('∇', 'θ'), 'L', '(', sub('θ', 's'), ',', sub('batch', 's'), ')'),
      row(sub('θ', row('s', '+', '1')), '=', sub('θ', 's'), '+', 'update', '(', sub('g', 's'), ')'),
    ),
    symbols: 'θ: all weights and biases. s: the step. g: the gradient, which says for each of them how the loss moves with it.',
    code: ['train/loop.py:Loop.run', 'train/loop.py:make_step', 'train/step.py:update_step'],
  },
  {
    title: 'Held-out text (validation)',
    picture: 'A pupil is tested with questions that were not in the exercise book. Who has only learnt the answers by heart is found out.',
    stops:
      'The test is no stranger than the exercises: it was cut from the same text, so it says little about texts of another kind.',
    words:
      'A part of the text is set aside before training, and no weight is ever moved by it. Its loss says what the model has ' +
      'understood, not what it remembers. While both curves fall together, the model learns the language of the text. When ' +
      'the loss of training falls on and that of held-out text rises, the model begins to learn by heart. The same loss in ' +
      'bits for each byte of text can be compared between models that cut text into different tokens.',
    maths: lines(
      row('L', '=', frac('1', 'M'), sum('m'), sub('ℓ', 'm')),
      row('bits', '=', frac(row(sum('m'), sub('ℓ', 'm')), row('ln', '2', '·', 'bytes'))),
    ),
    symbols: 'The sums go over the M held-out tokens. Bits: bits per byte. Bytes: the length of the held-out text.',
    code: ['train/validation.py:ValidationText.score'],
  },
  {
    title: 'The rungs: models that only count',
    picture:
      'Beside the curve stands a ladder. On each rung sits a clerk with a tally book, who has counted how often each letter ' +
      'came after the letters before it. The clerk on the first rung looks at no letter before, the next at one, and so on.',
    stops:
      'A clerk cannot see that two words are alike, and a higher rung need not be better: on a small text a long row of ' +
      'letters was hardly ever seen before.',
    words:
      'An n-gram model is the kind of language model that came before neural networks. It counts how often a byte followed ' +
      'the n − 1 bytes before it. (In plain English text a byte is a letter, a space or a mark.) Where it has seen too little, it leans on the next shorter ' +
      'row; the best way to mix the two is named after Kneser and Ney. Each rung is such a model of the same text, scored ' +
      'on the same held-out part. When your model passes a rung, it knows something that counting so far back cannot tell.',
    maths: lines(
      row('P', '(', 'w', '|', 'h', ')', '='),
      row(frac(row('max', '(', 'c', '(', 'h', 'w', ')', '−', 'd', ',', '0', ')'), row('c', '(', 'h', ')'))),
      row('+', 'γ', '(', 'h', ')', 'P', '(', 'w', '|', 'shorter', ')'),
    ),
    symbols: 'w: the next byte. h: those before it. c: how often seen. d: a small discount. γ: what the discounts leave for the shorter row.',
    code: ['evaluate/ladder.py:build_ladder', 'run/ladder.py:Ladder.passed', 'evaluate/ngram.py:Smoothed.interpolate'],
  },
];

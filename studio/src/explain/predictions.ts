/** Beside the predictions along a text: tokens, what was expected and what came, and how any step is found again. */
import type { Concept } from './concept';
import { lines, row, said, slope, sub, sum } from './mathml';

export const PREDICTIONS: Concept[] = [
  {
    title: 'Token',
    picture:
      'A printer of old kept whole syllables cast in metal beside the single letters. Common ones came from the case in one ' +
      'piece; rare words were set letter by letter.',
    stops: 'The pieces have nothing to do with syllables or meaning: they are what occurs together often in the text, spaces included.',
    words:
      'The model does not read letters or words but tokens: pieces of text, each with a number. The tokenizer cuts the text ' +
      'into them, and joins them again. Its vocabulary was found by merging, again and again, the two neighbours that stand ' +
      'together most often; or it is simply the letters of the text. So a common word is one token and a rare one is ' +
      'several. On this page ␣ is a space, ⏎ the end of a line and ⇥ a tab.',
    maths: lines(
      row('text', '↔', '(', sub('x', '1'), ',', sub('x', '2'), ',', '…', sub('x', 'T'), ')'),
      row('0', '≤', sub('x', 't'), '<', 'V'),
    ),
    symbols: 'x: the number of the token at each place. T: tokens in the text. V: tokens in the vocabulary.',
    code: ['data/tokens/tokenizer.py:EtudeTokenizer.encode', 'data/tokens/tokenizer.py:EtudeTokenizer.decode'],
  },
  {
    title: 'Predicted and desired output',
    picture: 'Cover the next word of a page with your thumb, write down what you expect and how sure you are, then lift the thumb.',
    stops: 'You lift one thumb at a time; in training all places of a text are predicted at once, each with all that follows it hidden.',
    words:
      'At every place there are two things to compare. The predicted output: a probability for each token of the vocabulary. ' +
      'The desired output: the token that really comes next in the text. Nobody has to write the answers, for the text is ' +
      'its own answer, shifted by one place. A colour tells the loss of each token: how surprised the model was by it. ' +
      'Its rank tells how many tokens it had believed in more.',
    maths: lines(
      row(sub('y', 't'), '=', sub('x', row('t', '+', '1'))),
      row(sub('ℓ', 't'), '=', '−', 'ln', sub('p', 't'), '(', sub('y', 't'), ')'),
      row('=', 'ln', sum('v'), '<msup><mi>e</mi><msub><mi>z</mi><mi>v</mi></msub></msup>', '−', sub('z', 'y')),
    ),
    symbols: 't: the place. x: token read. y: token desired. p: predicted probabilities. z: the logits that they are made of. ℓ: loss.',
    code: ['train/loss.py:token_losses', 'watch/prompts.py:Prompt.guesses', 'train/objectives/next_token.py:NextToken.batch'],
  },
  {
    title: 'Which word pointed there',
    picture:
      'To find out which musician carries a tune, ask them one after another to be silent, and listen to what is missing.',
    stops: 'Musicians do not listen to each other’s silence; tokens stand in for one another, so one that matters may seem not to.',
    words:
      'The page asks in two ways what an earlier token did for a prediction. Left out: its vector is replaced by the mean of ' +
      'all tokens’ vectors, and one sees how far the logit falls. Gradient times input: how steeply the logit moves with that ' +
      'vector, times the vector itself; a quick estimate of the same. Where the two disagree, trust neither too much.',
    maths: lines(
      row(said('left out'), '=', sub('z', 'v'), '(', sub('e', 't'), ')', '−', sub('z', 'v'), '(', 'mean', ')'),
      row('estimate', '=', sub('e', 't'), '·', slope(sub('z', 'v'), sub('e', 't'))),
    ),
    symbols: 'e: the vector that the token at place t is read as. z: the logit of the predicted token v.',
    code: ['watch/attribution.py:attribution'],
  },
  {
    title: 'Checkpoint and replay, with proof',
    picture:
      'A chess club keeps a photograph of the board every so often, and the list of all moves. To see the board at any move, ' +
      'set up the nearest photograph before it and play on by the list.',
    stops:
      'The moves themselves are not on a list: each is worked out anew by the same arithmetic from the same text. That is why ' +
      'it has to be proved that they came out the same.',
    words:
      'A checkpoint is everything that training needs to go on: the weights and the optimizer’s memories. Which text a step ' +
      'reads depends only on the seed and on the step’s number. So any step can be made again from the checkpoint before it, ' +
      'and looked into while it is made; the training itself carries no extra load. The proof: each loss and gradient length ' +
      'of the steps made again is held against the record, and so are the recorded checksums of all weights. Equal means ' +
      'equal in every bit. On another machine rounding may differ, and then the page says by how much.',
    maths: lines(
      row(sub('θ', row('s', '+', '1')), '=', 'F', '(', sub('θ', 's'), ',', 'batch', '(', 'seed', ',', 's', ')', ')'),
      row(sub('L', 'again'), '=', sub('L', 'then')),
      row('sum', '(', sub('θ', 'again'), ')', '=', 'sum', '(', sub('θ', 'then'), ')'),
    ),
    symbols: 'θ: weights and the optimizer’s memories. F: one step. L: loss. sum: the checksum, a short name that changes when any bit of a weight does.',
    code: ['watch/time_machine.py:TimeMachine.go_to', 'watch/proof.py:Proof.holds', 'train/checksum.py:checksum', 'train/checkpoint.py:save_checkpoint'],
  },
];

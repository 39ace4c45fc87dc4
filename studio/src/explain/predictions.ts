/** Explanations beside the predictions: tokens, what was predicted and what came, and how any step is replayed. */
import type { Concept } from './concept';
import { lines, row, said, slope, sub, sum } from './mathml';

export const PREDICTIONS: Concept[] = [
  {
    title: 'Token',
    picture:
      'Old printers kept common syllables cast in metal beside the single letters. Common syllables came from the case in ' +
      'one piece; rare words were set letter by letter.',
    stops:
      'The pieces have nothing to do with syllables or meaning: they are strings that often occur in the text, spaces ' +
      'included.',
    words:
      'The model does not read letters or words but tokens: pieces of text, each with a number. The tokenizer cuts the text ' +
      'into tokens, and joins them again. Its vocabulary was built by merging, again and again, the two neighbours that ' +
      'occur together most often; or it is simply the letters of the text. So a common word is one token and a rare word is ' +
      'several. On this page ␣ is a space, ⏎ the end of a line and ⇥ a tab.',
    maths: lines(
      row('text', '↔', '(', sub('x', '1'), ',', sub('x', '2'), ',', '…', sub('x', 'T'), ')'),
      row('0', '≤', sub('x', 't'), '<', 'V'),
    ),
    symbols: 'x: the number of the token at each position. T: tokens in the text. V: tokens in the vocabulary.',
    code: ['data/tokens/tokenizer.py:EtudeTokenizer.encode', 'data/tokens/tokenizer.py:EtudeTokenizer.decode'],
  },
  {
    title: 'Predicted and desired output',
    picture:
      'Cover the next word of a page with your thumb, write down what you expect and how sure you are, then lift the thumb.',
    stops:
      'You lift one thumb at a time; in training all positions of a text are predicted at once, and at each of them ' +
      'everything later is hidden.',
    words:
      'There are two things to compare at every position. The predicted output is a probability for each token of the ' +
      'vocabulary. The desired output is the token that really comes next in the text. Nobody has to write the answers: the ' +
      'text, shifted by one position, is its own answer. The colour of a token shows its loss: how surprised the model was ' +
      'by it. Its rank shows how many tokens the model thought more likely.',
    maths: lines(
      row(sub('y', 't'), '=', sub('x', row('t', '+', '1'))),
      row(sub('ℓ', 't'), '=', '−', 'ln', sub('p', 't'), '(', sub('y', 't'), ')'),
      row('=', 'ln', sum('v'), '<msup><mi>e</mi><msub><mi>z</mi><mi>v</mi></msub></msup>', '−', sub('z', 'y')),
    ),
    symbols:
      't: the position. x: token read. y: token desired. p: predicted probabilities. z: the logits that they are computed ' +
      'from. ℓ: loss.',
    code: ['train/loss.py:token_losses', 'watch/prompts.py:Prompt.guesses', 'train/objectives/next_token.py:NextToken.batch'],
  },
  {
    title: 'Which word pointed there',
    picture:
      'To find out which musician carries a tune, ask each of them in turn to be silent, and listen to what is missing.',
    stops:
      'Musicians do not replace each other at once; tokens can stand in for one another, so a token that matters may seem ' +
      'not to.',
    words:
      'The page measures in two ways what an earlier token did for a prediction. Ablation: replace its vector by the mean of ' +
      'all tokens’ vectors, and see how far the logit falls. Gradient times input: how steeply the logit changes with that ' +
      'vector, times the vector itself, which is a quick estimate of the same. If the two disagree, do not trust either too ' +
      'much.',
    maths: lines(
      row(said('ablation'), '=', sub('z', 'v'), '(', sub('e', 't'), ')', '−', sub('z', 'v'), '(', 'mean', ')'),
      row('estimate', '=', sub('e', 't'), '·', slope(sub('z', 'v'), sub('e', 't'))),
    ),
    symbols: 'e: the vector of the token at position t. z: the logit of the predicted token v.',
    code: ['watch/attribution.py:attribution'],
  },
  {
    title: 'Checkpoint and replay, with proof',
    picture:
      'A chess club keeps a photograph of the board every so often, and the list of all moves. To see the board at any move, ' +
      'set up the nearest photograph before it and replay the moves from there.',
    stops:
      'The moves themselves are not on a list: each is computed again by the same arithmetic from the same text. That is why ' +
      'the page has to prove that they came out the same.',
    words:
      'A checkpoint is everything that training needs to continue: the weights and the state of the optimizer. The text of a ' +
      'step depends only on the seed and the number of the step. So any step can be replayed from the checkpoint before it ' +
      'and looked into on the way; the training itself carries no extra load. The proof: each loss and gradient norm of the ' +
      'replayed steps is compared with the record, and so are the recorded checksums of all weights. Equal means equal in ' +
      'every bit. On another machine rounding may differ, and then the page shows by how much.',
    maths: lines(
      row(sub('θ', row('s', '+', '1')), '=', 'F', '(', sub('θ', 's'), ',', 'batch', '(', 'seed', ',', 's', ')', ')'),
      row(sub('L', 'again'), '=', sub('L', 'then')),
      row('sum', '(', sub('θ', 'again'), ')', '=', 'sum', '(', sub('θ', 'then'), ')'),
    ),
    symbols:
      'θ: weights and the state of the optimizer. F: one step. L: loss. sum: the checksum, a short name that changes when ' +
      'any bit of a weight does.',
    code: ['watch/time_machine.py:TimeMachine.go_to', 'watch/proof.py:Proof.holds', 'train/checksum.py:checksum', 'train/checkpoint.py:save_checkpoint'],
  },
];

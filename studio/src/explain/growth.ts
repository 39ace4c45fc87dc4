/** Explanations beside the growth of a run: from noise to text, what size does, and what seems to appear at once. */
import type { Concept } from './concept';
import { frac, lines, row, said, sub, sup } from './mathml';

export const GROWTH: Concept[] = [
  {
    title: 'From noise to language',
    picture: 'A child’s letters to a grandparent over the years, side by side: scribble, letters, words, sentences.',
    stops:
      'The child grows up among people and things. The model has only ever met text, and only a small part of the world’s.',
    words:
      'At set steps the model continues a prompt, and the result is kept. At the start all tokens are about equally likely, ' +
      'and it writes noise. It learns roughly in the order of what helps most often: which tokens are common, then which ' +
      'pairs, then the shape of words, then grammar within a sentence; sense over many sentences comes last, if it comes. A ' +
      'sample is chance as well as skill, so do not read much into one.',
    maths: lines(
      row(said('step 0:'), 'p', '≈', frac('1', 'V')),
      row('L', ':', 'ln', 'V', '→', 'falling'),
    ),
    symbols: 'p: probability of any token. V: tokens in the vocabulary. L: loss.',
    code: ['generate/engine.py:generate', 'plan/cadence.py:sample_due', 'model/init.py:init_table'],
  },
  {
    title: 'Scale',
    picture:
      'A library, its readers and their time. A large library is no use to one reader with an hour; many hours are no use ' +
      'with three books. They must grow together.',
    stops:
      'A library grows shelf by shelf and visibly; when the loss falls with scale, nobody can say beforehand which skill ' +
      'comes with it.',
    words:
      'Three sizes make a model large. Parameters: how many weights and biases it has. Data: how many tokens it has read. ' +
      'Compute: how many multiplications it took, about six for each parameter and token: two in the forward pass, four in ' +
      'the backward pass. If all three grow together, the loss falls along a smooth curve, so that smaller runs predict it. ' +
      'If one of them stays small, it becomes the limit: a text that is read too often teaches less each time, and a large ' +
      'model on a small text memorises it.',
    maths: lines(
      row('C', '≈', '6', '·', 'N', '·', 'D'),
      row('L', '≈', sub('L', '∞'), '+', frac('A', sup('N', 'α')), '+', frac('B', sup('D', 'β'))),
    ),
    symbols:
      'N: parameters. D: tokens read. C: operations. L∞: what no model could predict. A, B, α, β: fitted to runs; they ' +
      'differ from text to text.',
    code: ['model/cost.py:count_parameters', 'model/cost.py:training_flops_per_token', 'plan/forecast.py:forecast'],
  },
  {
    title: 'Emergence',
    picture:
      'Musicians practise scales, chords and rhythms for months, each separately. One evening they improvise together, and ' +
      'play a piece that nobody had written.',
    stops:
      'The band wants to play music. A model is only ever trained to predict the next token, and some leaps are made by the ' +
      'way of scoring.',
    words:
      'An ability is called emergent if it is absent in small models, or at early steps, and present in larger or later ' +
      'ones, although it was not trained by itself. The only goal was the next token; but to predict well, it helps to copy ' +
      'patterns, to close quotes, to keep a name in mind. To claim emergence, compare an ability with chance, with a model ' +
      'that only counts, and with runs of other seeds. One run is an anecdote.',
    maths: lines(
      row('score', '(', 'small', ')', '≈', 'chance'),
      row('score', '(', 'large', ')', '>', 'chance'),
    ),
    symbols:
      'Score: the share of questions that are answered correctly. Chance: what blind guessing gets. Both come with an error; ' +
      'a difference must be larger than that.',
    code: ['watch/prompts.py:induction_scores', 'run/ladder.py:Ladder.passed'],
  },
  {
    title: 'A cliff or a slope?',
    picture:
      'A high jumper gets a little better every week. The bar does not show it: down, down, down, and one day it stays up.',
    stops: 'A jumper’s bar is the aim itself. With a model we can measure the height as well, and we should.',
    words:
      'A cliff in the curve of right-or-wrong may be a gentle slope in probability. An answer of several tokens counts as ' +
      'right only if all of them are. If each becomes likelier bit by bit, the chance of all together stays near zero for a ' +
      'long time and then rises fast. Greedy choice does the same: the right token may climb from the tenth rank to the ' +
      'second, and nothing shows until it is first. So look at both curves. If the probability leaps too, something has ' +
      'really changed.',
    maths: lines(
      row('P', '(', said('all right'), ')', '=', sup('p', 'k')),
      row('ln', 'P', '=', 'k', '·', 'ln', 'p'),
    ),
    symbols: 'p: probability of one right token. k: tokens in the answer. The larger k, the more a slope of p looks like a cliff of P.',
    code: ['generate/scoring.py:score_sequences', 'train/loss.py:token_losses'],
  },
];

/** Explanations beside the chat: how a next token is chosen. */
import type { Concept } from './concept';
import { frac, lines, row, said, sub, sum, sup } from './mathml';

export const CHAT: Concept[] = [
  {
    title: 'It continues, it does not answer',
    picture: 'An actor who has learned one author by heart is given a line, and continues in the author’s voice.',
    stops: 'The actor knows that it is a play. The model knows no difference between what sounds right and what is right.',
    words:
      'What you type becomes the beginning of a text, and the model continues it. It was trained to continue its text, not ' +
      'to answer questions, and it knows nothing beyond that text and the tokens it can see at once. If a reply looks like ' +
      'an answer, it is because texts of that kind continue so. What it writes may be wrong, and it will sound the same.',
    maths: lines(
      row(sub('x', row('t', '+', '1')), '∼', 'P', '(', '·', '|', sub('x', '1'), '…', sub('x', 't'), ')'),
      row('t', '←', 't', '+', '1'),
    ),
    symbols: 'x: tokens, yours first. ∼: drawn from. Each drawn token is read again before the next.',
    code: ['generate/engine.py:stream', 'generate/language.py:Language.stream'],
  },
  {
    title: 'A conversation is one text',
    picture:
      'A play stands on one long page, with the name of the speaker before each line. The actor of the next line reads the ' +
      'page from its top.',
    stops: 'An actor remembers last night’s play. The model has this page alone, and where it grows too long, its oldest lines are cut off.',
    words:
      'The chat template writes the system prompt, your messages and the answers one after the other. Special tokens begin ' +
      'and end each turn. Where an answer belongs, the model continues the text, until it predicts the token that ends a ' +
      'turn. It answers because it was tuned on conversations that are written so. Choose a token of an answer to look at ' +
      'the whole text as the model read it.',
    maths: row('x', '=', said('template'), '(', said('system, user, assistant, …, user'), ')'),
    symbols: 'x: the tokens that the model reads before it answers, special tokens included.',
    code: ['generate/chat_prompt.py:Chatter.prompt', 'generate/chat_session.py:ChatSession.ask', 'data/conversations/encode.py:encode_prompt'],
  },
  {
    title: 'Sampling',
    picture:
      'A wheel of fortune has a slice for each token, as wide as its probability. Spin, read, paint a new wheel, spin again.',
    stops: 'This wheel can repeat its spins: the seed fixes every spin, so the same seed and settings give the same text.',
    words:
      'The model gives probabilities, and one token has to be chosen. Always taking the likeliest token (greedy) is safe and ' +
      'soon repeats itself. Drawing by the probabilities is livelier, and now and then picks something silly; the model then ' +
      'reads the silly token as if it had been meant. Click a token to see what else it might have been, and continue from ' +
      'another one.',
    maths: lines(
      row('P', '(', 'x', '=', 'v', ')', '=', sub('p', 'v')),
      row(said('greedy:'), 'x', '=', said('arg max'), sub('p', 'v')),
    ),
    symbols: 'p: the probabilities after temperature and top-p. v: a token of the vocabulary.',
    code: ['generate/sampling.py:choose', 'generate/sampling.py:draw'],
  },
  {
    title: 'Temperature',
    picture: 'Warm wax: heat it, and the peaks melt into the plain; cool it, and they stand out sharply.',
    stops:
      'Melted wax loses its shape for good; here the highest peak stays the highest at any heat, and turning the heat down ' +
      'restores the old shape.',
    words:
      'Before softmax all logits are divided by the temperature. A temperature of one keeps the model’s own probabilities. ' +
      'Below one, likely tokens become likelier; towards zero only the likeliest is left. Above one, all become more alike, ' +
      'and the text wilder. The order of the tokens never changes. The temperature is your choice, not a property of the ' +
      'model.',
    maths: row(sub('p', 'v'), '=', frac(sup('e', row(sub('z', 'v'), '/', 'T')), row(sum('u'), sup('e', row(sub('z', 'u'), '/', 'T'))))),
    symbols: 'z: logits. T: temperature.',
    code: ['generate/sampling.py:possible_tokens', 'generate/sampling.py:_weights'],
  },
  {
    title: 'Top-p',
    picture:
      'At an election count, start with the strongest party and add the next ones until a given share of the votes is ' +
      'reached. The rest get no seat.',
    stops:
      'A parliament has a fixed number of seats; here one token may be enough at one position, and hundreds at another.',
    words:
      'Each unlikely token is unlikely, but there are so many of them that together they are drawn too often. Top-p keeps ' +
      'the fewest likeliest tokens whose probabilities reach the share p, and drops the rest. If the model is sure, few are ' +
      'left; if it is unsure, many. What is left is scaled up to one again. With p = 1 all are kept.',
    maths: lines(
      row(said('fewest with'), sum('kept'), sub('p', 'v'), '≥', said('top-p')),
      row(sub('p', 'v'), '←', frac(sub('p', 'v'), row(sum('kept'), sub('p', 'u')))),
    ),
    symbols: 'p: probability of a token, after the temperature. Kept: the likeliest first.',
    code: ['generate/sampling.py:_kept_ids', 'generate/sampling.py:token_probabilities'],
  },
];

/**
 * The guided tour: what each stop says, what it asks the reader to do, and what the page shows meanwhile. Its numbers
 * are those of the run that is looked at, so a stop's text is a function of the run.
 */

import type { RunFacts } from '../lib/generated';
import { count, large, number } from '../lib/format';
import type { Selected } from '../lib/selection.svelte';

export interface Stop {
  id: string; // what is remembered, so that a changed order loses nobody's place
  title: string;
  text: (run: RunFacts) => string[]; // paragraphs
  act: string; // what the reader may do; text first, then act
  shows: (now: Selected) => Partial<Selected> & { view: Selected['view'] };
  place?: string; // the part of the view that it is about
}

const WORDS_A_SECOND = 3; // of somebody who meets all of this for the first time: below the usual 4
const SECONDS_TO_ACT = 15;
const SOME_WAY_IN = 8; // a token with a little text before it

/** The first tokens of a text have nothing before them to predict from. */
const withToken = (now: Selected) => ({ token: now.token > 0 ? now.token : SOME_WAY_IN });

const model = (run: RunFacts) => run.model;
const hasAttention = (run: RunFacts) => run.model?.attention ?? false;

export const STOPS: Stop[] = [
  {
    id: 'language-model',
    title: 'A language model',
    text: (run) => [
      `This is ${run.name}, a language model${run.state === 'running' ? ' that is being trained at this moment' : ''}. It does one thing: it reads some text and says, for every token it knows, how likely that token is to come next.`,
      `A token is a piece of text: a word, a part of one, or a single letter.${model(run) ? ` This model knows ${count(model(run)!.vocabulary)} of them.` : ''} Whoever can tell how likely a text is, and what may follow, can also write.`,
      'Before networks, language models counted: how often did this come after that? Those older models stand on this page as a ladder.',
    ],
    act: 'Find the newest sample that it wrote, further down on the page.',
    shows: () => ({ view: 'live' }),
  },
  {
    id: 'predictions',
    title: 'It bets on the next token',
    text: () => [
      'Here is a piece of text that the model never learns from, cut into tokens. At each place the model has laid its bets on what comes next, knowing only what stands before.',
      'The stronger the colour of a token, the more it came as a surprise.',
    ],
    act: 'Click a token, or use the arrow keys, and compare what was expected with what came.',
    shows: (now) => ({ view: 'predictions', ...withToken(now) }),
  },
  {
    id: 'node',
    title: 'A node',
    text: (run) => [
      'Between text and bets lies a network of nodes. Think of a station on an assembly line: it takes something from each belt that comes in and passes one result on. But nobody gave it its task; training did.',
      `A node takes numbers in, multiplies each by a weight of its own, adds them up, and passes the sum through a bend, the activation function.${model(run) ? ` This model has ${count(model(run)!.nodes)} such nodes in each of its ${count(model(run)!.layers)} layers (${model(run)!.activation} is their bend).` : ''}`,
    ],
    act: 'Choose a node and see which pieces of text wake it most.',
    shows: () => ({ view: 'neurons' }),
  },
  {
    id: 'weight',
    title: 'A weight',
    text: (run) => [
      'A weight says how much one input counts for one node. Think of a volume control, with a twist: below zero it turns the sound upside down. Blue is above zero, orange below.',
      `${model(run) ? `Nearly all of this model’s ${count(model(run)!.parameters)} numbers are weights.` : 'Nearly all numbers of a model are weights.'} They began as chance, or as zero. All that the model knows is in them.`,
    ],
    act: 'Choose a tensor and look at “Since the start”: what training has written into it.',
    shows: () => ({ view: 'layers' }),
  },
  {
    id: 'bias',
    title: 'A bias',
    text: (run) =>
      model(run) && !model(run)!.biases
        ? [
            'Besides its weights a node may have a bias: a number that is added to the sum whatever comes in. Think of a thermostat: it sets how much is needed before the node answers.',
            'This model was built without biases, as many large ones are; it does nearly as well. So there is no such number to see in this run.',
          ]
        : [
            'Besides its weights a node has a bias: a number that is added to the sum whatever comes in. Think of a thermostat: it sets how much is needed before the node answers. Nobody sets it by hand. It starts at zero, and training moves it.',
          ],
    act: 'Here is the sum of one node, in a step that was really made. Find the last term before the result.',
    shows: (now) => ({ view: 'step', scene: 0, ...withToken(now) }),
  },
  {
    id: 'forward',
    title: 'Forward: from text to a bet',
    text: (run) => [
      'Now one real step of the training, opened. It begins with reading. Each token becomes a row of numbers, its vector.',
      hasAttention(run)
        ? `The vector goes through ${model(run)!.layers === 1 ? 'one layer' : `${count(model(run)!.layers)} layers`}. Each adds to it: attention brings in what stands earlier in the text, then the nodes work on it. This is forward propagation.`
        : 'The vectors of the last few tokens go side by side into the nodes, and from there to the output. This is forward propagation.',
      'The numbers here are not an example. They are the run’s own, made again and checked: a tick says that the page has done the sum as well.',
    ],
    act: 'In the scene “Forward”, follow the node’s sum to its activation.',
    shows: (now) => ({ view: 'step', scene: 0, ...withToken(now) }),
  },
  {
    id: 'desired',
    title: 'Predicted and desired',
    text: () => [
      'The forward pass ends in probabilities: the predicted output. Beside it stands the desired output: the token that really came next in the text. The text is its own answer sheet.',
      'Take predicted minus desired, for each token of the vocabulary. What is left over is the first error signal: too much here, too little there.',
    ],
    act: 'In the scene “Predicted and desired”, try another token of the row.',
    shows: (now) => ({ view: 'step', scene: 1, ...withToken(now) }),
  },
  {
    id: 'loss',
    title: 'Loss: how wrong, in one number',
    text: (run) => [
      'Loss is surprise: minus the logarithm of the probability that the right token had been given. Sure and right costs nearly nothing; sure and wrong costs much.',
      run.uniform_loss === null
        ? 'A model that knows nothing, and bets the same on every token, has a loss of ln V, with V the tokens it knows.'
        : `A model that knows nothing, and bets the same on each of its tokens, has a loss of ${number(run.uniform_loss, 2)} here. Every improvement is measured from there.`,
      'The mean over all tokens of the batch is the number that training makes small. It has no other aim.',
    ],
    act: 'In the scene “Loss”, find the token that was the greatest surprise.',
    shows: (now) => ({ view: 'step', scene: 2, ...withToken(now) }),
  },
  {
    id: 'backward',
    title: 'Backward: who had a share in it?',
    text: () => [
      'Now the error goes back through the network. Think of a detective who retraces the steps of a case: at each station, how much did this one add to the mistake? Only that nothing is guessed; each share is an exact product of numbers seen on the way forward. This is backpropagation.',
      'In the end each weight has its gradient: how the loss would move if the weight did. Every token of the batch pulls at every weight, some up, some down. Most of the pulls cancel.',
    ],
    act: 'In the scene “Backward”, look at the tug of war over one weight.',
    shows: (now) => ({ view: 'step', scene: 3, ...withToken(now) }),
  },
  {
    id: 'update',
    title: 'Update: every weight moves a little',
    text: (run) => [
      'Each weight is moved a little against its gradient. If all gradients together are too long, they are shortened first (clipping). The learning rate says how far a move goes.',
      `The rule of this run is ${run.optimizer || 'written beside each tensor'}: it remembers earlier gradients, so that one odd batch does not throw the weights about.`,
      'Then the same text is read again with the new weights.',
    ],
    act: 'In the scene “Update”: one weight before and after. Press Space for the next one, “Did it help?”',
    shows: (now) => ({ view: 'step', scene: 4, ...withToken(now) }),
  },
  {
    id: 'loop',
    title: 'The loop',
    text: (run) => [
      'Read, predict, compare, trace back, adjust. That was one lap. Think of a player at the basket: throw, look, correct, throw again. Here a whole batch of throws is corrected at once.',
      `This run stands at lap ${count(run.step)}${run.num_steps ? ` of ${count(run.num_steps)}` : ''}. Nothing else happens in training. Each point of the curve is one lap, and its fall is what all those small moves came to.`,
    ],
    act: 'Mark a step early in the curve, then open it with “open it”. Come back with “Back to this stop”.',
    shows: () => ({ view: 'live' }),
  },
  {
    id: 'held-out',
    title: 'Does it learn, or learn by heart?',
    text: (run) => [
      'The training loss is measured on text that the model learns from. Validation is measured on text that was set aside. If only the first one falls, the model learns by heart.',
      run.ladder.length > 1
        ? `The ladder holds it against ${count(run.ladder.length)} other ways to guess, on the same unseen text. To pass a rung is to know something that this way of guessing cannot.`
        : 'Where a run has counted its text, a ladder of older models, which only count, is drawn as lines across the curve.',
    ],
    act: 'See which rung was passed last, and which comes next.',
    shows: () => ({ view: 'live' }),
  },
  {
    id: 'scale',
    title: 'Scale',
    text: (run) => [
      `“Large” means three things: how many numbers the model has${model(run) ? ` (yours: ${large(model(run)!.parameters)})` : ''}, how much text it has read, and how much computing went into it. Models that people talk about have many thousand times more of each, and are trained by the same loop.`,
      'Where all three grow together, the loss falls along a smooth curve. Where one stays small, it becomes the limit: a large model on a small text only learns it by heart.',
    ],
    act: 'Find the chart of sizes. With runs of several sizes in this folder you see your own curve.',
    shows: () => ({ view: 'growth' }),
    place: 'by-size',
  },
  {
    id: 'emergence',
    title: 'Emergence',
    text: () => [
      'Read the samples from the first to the last: noise, then common letters, then words, then more. Nobody trained for spelling; it helped to predict. An ability that is absent in small or young models and present in larger or older ones is called emergent. Think of musicians who practised scales and one evening improvise a piece.',
      'But be careful. An all-or-nothing score can make a steady slope look like a cliff: many tokens must be right at once. Look at the probabilities too, and at more than one run.',
    ],
    act: 'Compare two samples from the same prompt, and say what the later one can do.',
    shows: () => ({ view: 'growth' }),
    place: 'samples',
  },
  {
    id: 'your-turn',
    title: 'Your turn',
    text: () => [
      'Last, let it write. It goes on with whatever you give it: bet, draw a token, read it again, bet again. The temperature says how daring the draw is. Remember that it knows no facts, only what tends to follow what.',
      'You have seen all there is to it. Beside each view, “Explain” says the same at four depths: a picture, words, the maths, and the code that did it.',
    ],
    act: 'Type a beginning, let it go on, then click a token and take another one instead.',
    shows: () => ({ view: 'chat' }),
  },
];

export function secondsOf(stop: Stop, run: RunFacts): number {
  const words = [...stop.text(run), stop.act].join(' ').split(/\s+/).length;
  return words / WORDS_A_SECOND + SECONDS_TO_ACT;
}

/** How long the tour still takes from a stop on, in words. */
export function left(from: number, run: RunFacts): string {
  const minutes = Math.round(STOPS.slice(from).reduce((sum, stop) => sum + secondsOf(stop, run), 0) / 60);
  return minutes < 1 ? 'less than a minute left' : minutes === 1 ? 'about a minute left' : `about ${minutes} minutes left`;
}

/** Why the tour cannot go on yet, or nothing. It shows a real run, so it waits for one that can be opened. */
export function waitsFor(run: RunFacts | null): string {
  if (run === null) return 'There is no run to walk through yet. Start one with “etude train”; the tour begins by itself when it appears here.';
  if (run.last_step >= run.first_step) return '';
  if (run.state === 'running' || run.state === 'starting' || run.state === 'not begun')
    return 'Your run has made no step yet that can be opened. This takes a moment; the tour begins by itself.';
  return 'This run ended before it had a step that can be opened. Choose another run above, or start one; the tour begins by itself.';
}

import { describe, expect, it } from 'vitest';

import { isRight, played, scored, standing } from './scoreboard';

describe('a guess', () => {
  it('is right whatever blanks stand around it', () => {
    expect(isRight('the', [' the', ' sea'])).toBe(true);
    expect(isRight(' the', [' the'])).toBe(true);
    expect(isRight('The', [' the'])).toBe(false);
  });
  it('may be the whole word of which the next token is a part', () => {
    expect(isRight('hearing', [' he', 'ar', 'ing', ' it'])).toBe(true);
    expect(isRight('hear', [' he', 'ar', 'ing', ' it'])).toBe(false);
    expect(isRight('hearings', [' he', 'ar', 'ing', ' it'])).toBe(false);
    expect(isRight('h', [' he', 'ar'])).toBe(false);
    expect(isRight('he', [' he', 'ar'])).toBe(true);
  });
  it('of a blank is right only for that blank', () => {
    expect(isRight(' ', [' '])).toBe(true);
    expect(isRight('\n', [' '])).toBe(false);
    expect(isRight(' ', ['x'])).toBe(false);
    expect(isRight('x', ['\n'])).toBe(false);
  });
  it('is never right without text', () => {
    expect(isRight('', ['a'])).toBe(false);
    expect(isRight('a', [])).toBe(false);
  });
});

describe('the scoreboard', () => {
  const rounds = [
    played(1, 'the', ' the', [' the']),
    played(2, null, ' sea', [' sea']),
    played(3, 'calm', ' the', [' calm']),
    played(4, 'x', 'y', ['z']),
    played(5, 'w', 'y', ['w']),
  ];

  it('counts both', () => {
    expect(scored(rounds)).toEqual({ rounds: 5, reader: 3, model: 2, both: 1, neither: 1 });
  });
  it('says who is ahead', () => {
    expect(standing(scored(rounds))).toBe('You are ahead by 1.');
    expect(standing(scored(rounds.slice(0, 2)))).toBe('The model is ahead by 1.');
    expect(standing(scored(rounds.slice(0, 1)))).toBe('You and the model are level.');
    expect(standing(scored([]))).toBe('Nothing guessed yet.');
  });
});

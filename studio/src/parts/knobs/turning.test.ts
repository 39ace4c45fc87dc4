import { describe, expect, it } from 'vitest';

import { inWords, notKept, parseKnob, turnedOn, withKnob, withoutTarget } from './turning';

describe('a knob', () => {
  it('says what it turns, how and how far', () => {
    expect(parseKnob('model.layers.0.mlp.post[17]*0')).toEqual({
      target: 'model.layers.0.mlp.post[17]', name: 'model.layers.0.mlp.post', how: '*', value: 0,
    });
    expect(parseKnob('model.layers.0.mlp.down_proj.weight[3, 5] = -2.5e-3')).toMatchObject({
      target: 'model.layers.0.mlp.down_proj.weight[3,5]', how: '=', value: -0.0025,
    });
    expect(parseKnob('model.layers.1.resid_post[4]@3+-1')).toMatchObject({
      target: 'model.layers.1.resid_post[4]@3', how: '+', value: -1,
    });
  });
  it.each(['', 'model', 'model.weight[1]', 'a[1]=x', 'a[1]=1e999', 'a[-1]=1', 'a[1]/2'])('%j turns nothing', (text) => {
    expect(parseKnob(text)).toBeNull();
  });
});

describe('several knobs', () => {
  const knobs = ['a.bias[1]=2', 'b.post[3]*0'];

  it('keep one way of turning each thing', () => {
    expect(withKnob(knobs, 'a.bias[1]+1')).toEqual(['a.bias[1]+1', 'b.post[3]*0']);
    expect(withKnob(knobs, 'a.bias[2]=1')).toEqual([...knobs, 'a.bias[2]=1']);
    expect(knobs).toEqual(['a.bias[1]=2', 'b.post[3]*0']);
  });
  it('keep a text that turns nothing once, to be seen and taken back', () => {
    expect(withKnob(withKnob(knobs, 'nonsense'), 'nonsense')).toEqual([...knobs, 'nonsense']);
  });
  it('can be taken back by what they turn', () => {
    expect(withoutTarget(knobs, 'b.post[3]')).toEqual(['a.bias[1]=2']);
    expect(withoutTarget(knobs, 'b.post')).toEqual(knobs);
    expect(turnedOn(knobs, 'a.bias[1]')?.value).toBe(2);
    expect(turnedOn(knobs, 'a.bias')).toBeNull();
  });
  it('are kept by a run only where they are parameters', () => {
    expect(notKept(knobs, ['a.bias'])).toEqual(['b.post[3]*0']);
    expect(notKept(['a.bias=0'], ['a.bias'])).toEqual([]);
  });
  it('are said in words', () => {
    expect(['a*0', 'a*0.5', 'a=2', 'a+1', 'a+-1', '?'].map(inWords)).toEqual([
      'switched off', 'times 0.5', 'set to 2', 'raised by 1', 'lowered by 1', 'changes nothing',
    ]);
  });
});

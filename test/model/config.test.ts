import { type ModelConfig, readModelConfig } from '../../lib/model/config';
import { expectModelError } from '../support/tiny-model';

type Json = Record<string, unknown>;

const base = {
  vocab_size: 100,
  hidden_size: 48,
  intermediate_size: 96,
  num_hidden_layers: 3,
  num_attention_heads: 6,
  infini: { segment_length: 128, rule: 'linear' },
};

/** What the base means, every default filled in. */
const resolved: ModelConfig = {
  vocabulary: 100,
  width: 48,
  layers: 3,
  heads: 6,
  kvHeads: 6,
  headDim: 8,
  mlpWidth: 96,
  activation: 'silu',
  normEpsilon: 1e-6,
  ropeTheta: 10000,
  tied: false,
  segmentLength: 128,
  rule: 'linear',
  emptyRead: 'gated',
};

const read = (config: unknown) => readModelConfig(JSON.stringify(config), 'config.json');
const readWith = (change: Json) => read({ ...base, ...change });
/** The base with these keys is refused. */
const refuse = (change: Json, ...says: (string | RegExp)[]) =>
  expectModelError(() => readWith(change), /^config\.json: expected /, 'but received', ...says);

describe('a configuration', () => {
  test('without what has a default gets the defaults, and is frozen', () => {
    const config = read(base);
    expect(config).toEqual(resolved);
    expect(Object.isFrozen(config)).toBe(true);
  });

  test('with everything set means what it says', () => {
    const config = {
      num_key_value_heads: 2,
      head_dim: 16,
      hidden_act: 'gelu',
      rms_norm_eps: 1e-5,
      rope_theta: 500000,
      tie_word_embeddings: true,
      infini: { segment_length: 65536, rule: 'delta', empty_read: 'local' },
    };
    expect(readWith(config)).toEqual({
      ...resolved,
      kvHeads: 2,
      headDim: 16,
      activation: 'gelu',
      normEpsilon: 1e-5,
      ropeTheta: 500000,
      tied: true,
      segmentLength: 65536,
      rule: 'delta',
      emptyRead: 'local',
    });
  });

  test('may say null for what has a default', () => {
    const keys = [
      'num_key_value_heads',
      'head_dim',
      'hidden_act',
      'rms_norm_eps',
      'rope_theta',
      'rope_parameters',
      'rope_scaling',
      'tie_word_embeddings',
      'attention_bias',
      'mlp_bias',
      'model_type',
      'partial_rotary_factor',
      'pretraining_tp',
      'quantization_config',
      'sliding_window',
    ];
    expect(readWith(Object.fromEntries(keys.map((key) => [key, null])))).toEqual(resolved);
    expect(readWith({ infini: { ...base.infini, empty_read: null } })).toEqual(resolved);
  });

  test('of Llama has many keys that do not matter here', () => {
    const llama = {
      architectures: ['LlamaForCausalLM'],
      attention_bias: false,
      attention_dropout: 0.0,
      bos_token_id: 1,
      eos_token_id: [2, 3],
      initializer_range: 0.02,
      max_position_embeddings: 4096,
      mlp_bias: false,
      model_type: 'llama',
      pretraining_tp: 1,
      rope_scaling: null,
      torch_dtype: 'bfloat16',
      transformers_version: '4.46.0',
      use_cache: true,
      constructor: 1,
    };
    expect(readWith(llama)).toEqual(resolved);
    const text = JSON.stringify(base).replace('{', '{"__proto__":{"model_type":"mamba","head_dim":4},');
    expect(readModelConfig(text, 'config.json')).toEqual(resolved);
  });

  test.each([
    ['nothing', ''],
    ['half an object', '{"vocab_size": 1'],
    ['a number that JSON does not have', '{"vocab_size": NaN}'],
    ['a comment', '{} // Llama'],
  ])('that is %s is no JSON', (_, text) =>
    expectModelError(() => readModelConfig(text, 'a/config.json'), /^a\/config\.json: expected JSON/),
  );

  test.each(['null', '[]', '"x"', '1', 'true'])('that is %s is no object', (text) =>
    expectModelError(() => readModelConfig(text, 'config.json'), 'an object'),
  );
});

describe.each([
  ['vocab_size', 'vocabulary', 2 ** 24],
  ['hidden_size', 'width', 2 ** 20],
  ['num_hidden_layers', 'layers', 1024],
  ['num_attention_heads', 'heads', 1024],
  ['num_key_value_heads', 'kvHeads', 1024],
  ['intermediate_size', 'mlpWidth', 2 ** 20],
] as const)('%s', (key, property, most) => {
  // All heads share one width and one key-value head where they are as many as can be.
  const fits = (value: number) => ({
    head_dim: 8,
    num_key_value_heads: key === 'num_attention_heads' ? 1 : undefined,
    num_attention_heads: key === 'num_key_value_heads' ? most : 6,
    [key]: value,
  });

  test('is an integer within its limits', async () => {
    expect(readWith(fits(1))[property]).toBe(1);
    expect(readWith(fits(most))[property]).toBe(most);
    for (const value of [0, -1, 1.5, most + 1, 1e300]) {
      await refuse(fits(value), `an integer from 1 to ${most} for "${key}"`, `received ${value}`);
    }
  });

  test('is a number', async () => {
    for (const value of ['8', true, [8], { value: 8 }])
      await refuse({ [key]: value }, 'an integer', `"${key}"`);
  });

  test(key === 'num_key_value_heads' ? 'may be left out' : 'must be there', async () => {
    const { [key]: _, ...rest } = { num_key_value_heads: 6, ...base };
    if (key === 'num_key_value_heads') expect(read(rest).kvHeads).toBe(6);
    else {
      await expectModelError(() => read(rest), `"${key}"`, 'received undefined');
      await refuse({ [key]: null }, `"${key}"`, 'received null');
    }
  });
});

test('the message is the one that the documentation shows', async () => {
  const config = { ...base, num_attention_heads: 0 };
  await expectModelError(
    () => read(config),
    /^config\.json: expected an integer from 1 to 1024 for "num_attention_heads" but received 0$/,
  );
});

test.each([4, 5, 12])('%d key-value heads do not divide 6 heads', (heads) =>
  refuse({ num_key_value_heads: heads }, 'a divisor of "num_attention_heads" (6)', `received ${heads}`),
);

describe('head_dim', () => {
  test('is even and from 2 to 256', async () => {
    for (const value of [2, 128, 256]) expect(readWith({ head_dim: value }).headDim).toBe(value);
    for (const value of [0, 1, 7, 258, -2, 2.5]) {
      await refuse({ head_dim: value }, 'an even integer from 2 to 256 for "head_dim"', `received ${value}`);
    }
    for (const value of ['8', false, {}]) await refuse({ head_dim: value }, '"head_dim"');
  });

  test('is by default what is left of the width for each head', async () => {
    expect(readWith({ hidden_size: 60 }).headDim).toBe(10);
    await refuse({ hidden_size: 50 }, 'a multiple of "num_attention_heads" (6)', '"hidden_size"', '50');
    await refuse(
      { hidden_size: 54 },
      'an even integer',
      '"hidden_size" / "num_attention_heads"',
      'received 9',
    );
    await refuse({ hidden_size: 6 * 258 }, 'from 2 to 256', 'received 258');
    expect(readWith({ hidden_size: 50, head_dim: 8 })).toMatchObject({ width: 50, headDim: 8 });
  });
});

test('hidden_act has one of the names of three functions', async () => {
  const names = {
    silu: 'silu',
    swish: 'silu',
    gelu: 'gelu',
    gelu_new: 'gelu_tanh',
    gelu_pytorch_tanh: 'gelu_tanh',
    gelu_fast: 'gelu_tanh',
  };
  for (const [name, activation] of Object.entries(names)) {
    expect(readWith({ hidden_act: name }).activation).toBe(activation);
  }
  for (const name of ['relu', 'gelu_tanh', 'quick_gelu', 'SiLU', '', 'constructor', 1, ['silu'], false]) {
    await refuse({ hidden_act: name }, "'silu' or 'swish' or 'gelu'", '"hidden_act"');
  }
});

test.each(['rms_norm_eps', 'rope_theta'])('%s is finite and above 0', async (key) => {
  const property = key === 'rope_theta' ? 'ropeTheta' : 'normEpsilon';
  for (const value of [1e-12, 1, 1e6]) expect(readWith({ [key]: value })[property]).toBe(value);
  for (const value of [0, -1, '1', true, [1]])
    await refuse({ [key]: value }, 'a finite number above 0', `"${key}"`);
  for (const [text, received] of [
    ['1e999', 'Infinity'],
    ['1e-999', '0'],
    ['-0', '0'],
  ]) {
    const json = JSON.stringify({ ...base, [key]: 'X' }).replace('"X"', text);
    await expectModelError(() => readModelConfig(json, 'c'), `"${key}"`, `received ${received}`);
  }
});

test('tie_word_embeddings is true or false', async () => {
  expect(readWith({ tie_word_embeddings: true }).tied).toBe(true);
  expect(readWith({ tie_word_embeddings: false }).tied).toBe(false);
  for (const value of [0, 1, 'true', {}]) {
    await refuse({ tie_word_embeddings: value }, 'true or false', '"tie_word_embeddings"');
  }
});

describe.each(['rope_parameters', 'rope_scaling'])('%s', (key) => {
  test("of the type 'default' may give theta", () => {
    expect(readWith({ [key]: { rope_type: 'default' } }).ropeTheta).toBe(10000);
    expect(readWith({ [key]: { rope_type: 'default', rope_theta: 5e5 } }).ropeTheta).toBe(5e5);
    expect(readWith({ [key]: { type: 'default', rope_theta: 5e5 } }).ropeTheta).toBe(5e5);
    expect(readWith({ [key]: { rope_type: 'default', type: null, rope_theta: null } }).ropeTheta).toBe(10000);
    expect(readWith({ rope_theta: 5e5, [key]: { rope_type: 'default' } }).ropeTheta).toBe(5e5);
    expect(readWith({ rope_theta: 5e5, [key]: { rope_type: 'default', rope_theta: 5e5 } }).ropeTheta).toBe(
      5e5,
    );
    expect(readWith({ [key]: false }).ropeTheta).toBe(10000);
  });

  test('of another type is refused', async () => {
    for (const type of ['linear', 'dynamic', 'yarn', 'llama3', '', 1, {}]) {
      await refuse(
        { [key]: { rope_type: type } },
        "'default'",
        `"${key}.rope_type"`,
        'restart in every segment',
      );
      await refuse({ [key]: { type } }, "'default'", `"${key}.type"`);
      await refuse({ [key]: { rope_type: 'default', type } }, "'default'", `"${key}.type"`);
      await refuse({ [key]: { type: 'default', rope_type: type } }, "'default'", `"${key}.rope_type"`);
    }
    for (const rope of [
      {},
      { factor: 8 },
      { rope_theta: 1e4 },
      { full_attention: { rope_type: 'default' } },
    ]) {
      await refuse({ [key]: rope }, `"${key}.rope_type"`, 'received undefined');
    }
    for (const rope of [true, 8, 'default', ['default']])
      await refuse({ [key]: rope }, 'an object', `"${key}"`);
  });

  test('is checked like the rest', async () => {
    for (const value of [0, '1', -1]) {
      await refuse({ [key]: { rope_type: 'default', rope_theta: value } }, 'above 0', `"${key}.rope_theta"`);
    }
    const half = { rope_type: 'default', partial_rotary_factor: 0.5 };
    await refuse({ [key]: half }, `"${key}.partial_rotary_factor"`, 'received 0.5');
    expect(readWith({ [key]: { ...half, partial_rotary_factor: 1 } }).ropeTheta).toBe(10000);
  });

  test('says the same theta as elsewhere', async () => {
    const rope = { rope_type: 'default', rope_theta: 5e5 };
    await refuse(
      { rope_theta: 1e4, [key]: rope },
      '10000, as for "rope_theta",',
      `"${key}.rope_theta"`,
      '500000',
    );
  });
});

test('two forms of theta that differ are refused', () =>
  refuse(
    {
      rope_parameters: { rope_type: 'default', rope_theta: 1e4 },
      rope_scaling: { type: 'default', rope_theta: 1e5 },
    },
    '10000, as for "rope_parameters.rope_theta",',
    '"rope_scaling.rope_theta"',
  ));

describe('what would be another model is refused:', () => {
  test.each(['mistral', 'qwen2', '', 'LLAMA', 1, {}, false])('model_type %j', (type) =>
    refuse({ model_type: type }, "'llama'", '"model_type"'),
  );

  test.each([
    ['attention_bias', true, 'no bias'],
    ['attention_bias', 0, 'no bias'],
    ['mlp_bias', true, 'no bias'],
    ['quantization_config', { bits: 4 }, 'quantized'],
    ['sliding_window', 4096, 'segment'],
    ['partial_rotary_factor', 0.5, 'rotates'],
    ['partial_rotary_factor', '1', 'rotates'],
    ['partial_rotary_factor', false, 'rotates'],
    ['pretraining_tp', 2, 'slices'],
    ['pretraining_tp', '1', 'slices'],
  ])('%s %j', (key, value, why) => refuse({ [key]: value }, `"${key}"`, why));

  test('but not what changes nothing', () => {
    const harmless = {
      model_type: 'llama',
      attention_bias: false,
      mlp_bias: false,
      quantization_config: false,
      sliding_window: false,
      partial_rotary_factor: 1.0,
      pretraining_tp: 1,
    };
    expect(readWith(harmless)).toEqual(resolved);
  });
});

describe('infini', () => {
  test('must be there, and the message says what to add', async () => {
    const { infini: _, ...llama } = base;
    const says = ['{"segment_length": 2048, "rule": "delta"}', '"infini"'];
    await expectModelError(() => read(llama), ...says, 'received undefined');
    for (const value of [null, true, [], 'delta', 2048]) await refuse({ infini: value }, ...says);
  });

  test('has no unknown key', async () => {
    for (const key of ['segmentLength', 'gate', '', 'constructor']) {
      await refuse(
        { infini: { ...base.infini, [key]: 1 } },
        "only the keys 'segment_length', 'rule', 'empty_read' in \"infini\"",
        `received ${JSON.stringify(key)}`,
      );
    }
    const text = JSON.stringify(base).replace('"rule"', '"__proto__":{"rule":"delta"},"rule"');
    await expectModelError(() => readModelConfig(text, 'c'), 'only the keys', '"__proto__"');
  });

  const refuseInfini = (change: Json, ...says: string[]) =>
    refuse({ infini: { ...base.infini, ...change } }, ...says);

  test('has a segment_length', async () => {
    expect(readWith({ infini: { ...base.infini, segment_length: 1 } }).segmentLength).toBe(1);
    for (const value of [0, 65537, 1.5, '128', null, undefined]) {
      await refuseInfini({ segment_length: value }, 'an integer from 1 to 65536', '"infini.segment_length"');
    }
  });

  test('has a rule', async () => {
    for (const value of ['Delta', '', 'gated', null, undefined, 1, ['delta']]) {
      await refuseInfini({ rule: value }, "'linear' or 'delta'", '"infini.rule"');
    }
  });

  test('may say what an empty memory gives', async () => {
    expect(readWith({ infini: { ...base.infini, empty_read: 'local' } }).emptyRead).toBe('local');
    for (const value of ['zero', '', 1, false]) {
      await refuseInfini({ empty_read: value }, "'gated' or 'local'", '"infini.empty_read"');
    }
  });
});

test('a value of any length is shown in short', async () => {
  const error = await Promise.resolve()
    .then(() => readWith({ hidden_act: 'x'.repeat(10000), infini: { ['k'.repeat(10000)]: 1 } }))
    .catch((caught) => caught);
  expect(error.message.length).toBeLessThan(300);
  await refuse({ infini: { ['k'.repeat(10000)]: 1 } }, `"${'k'.repeat(128)}..."`);
});

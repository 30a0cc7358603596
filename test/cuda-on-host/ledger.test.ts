// What scripts/check-kernels.cjs makes of the compiler's words.

const { isTuned, parse, problems, shorten } = require('../../scripts/kernels/ledger.cjs');

const log = `ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z7forwardIfLi64EEvPT_' for 'sm_80'
ptxas info    : Function properties for _Z7forwardIfLi64EEvPT_
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 168 registers, used 1 barriers, 512 bytes smem, 360 bytes cmem[0]
ptxas info    : Compile time = 3.323 ms
ptxas info    : Compiling entry function '_Z7forwardIfLi256EEvPT_' for 'sm_90'
ptxas info    : Function properties for _Z7forwardIfLi256EEvPT_
    104 bytes stack frame, 64 bytes spill stores, 96 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 104 bytes cumulative stack size, 360 bytes cmem[0]
`;

const row = (kernel: string, spilled = 0) => {
  return {
    kernel,
    architecture: 'sm_80',
    registers: 99,
    shared: 0,
    stack: 0,
    stores: spilled,
    loads: spilled,
  };
};

test('each instance and architecture has a row', () => {
  expect(parse(log)).toEqual([
    {
      kernel: '_Z7forwardIfLi64EEvPT_',
      architecture: 'sm_80',
      registers: 168,
      shared: 512,
      stack: 0,
      stores: 0,
      loads: 0,
    },
    {
      kernel: '_Z7forwardIfLi256EEvPT_',
      architecture: 'sm_90',
      registers: 255,
      shared: 0,
      stack: 104,
      stores: 64,
      loads: 96,
    },
  ]);
});

test.each([
  [
    'void infini::cuda::(anonymous namespace)::forward<__half, 64>(infini::cuda::Shape)',
    'forward<float16, 64>',
  ],
  [
    'void infini::cuda::sums<__nv_bfloat16, 128, true>(int, infini::cuda::Job const*)',
    'sums<bfloat16, 128, true>',
  ],
  ['infini::cuda::(anonymous namespace)::append(infini::cuda::Job const*)', 'append'],
])('%s is called %s', (signature, name) => {
  expect(shorten(signature)).toBe(name);
});

test('instances that head dimensions up to 128 use are tuned', () => {
  expect(['f<float, 64>', 'f<bfloat16, 128, true>', 'f<float>', 'f'].every(isTuned)).toBe(true);
  expect(['f<float, 256>', 'f<float, 64, 256>'].some(isTuned)).toBe(false);
});

describe('a problem is', () => {
  test('nothing, when no register is spilled', () => {
    expect(problems([row('f<float, 64>'), row('f<float, 256>')], [], 1024)).toEqual([]);
  });

  test('a spill in a tuned instance, whatever reason is given', () => {
    const exceptions = [{ kernel: /./, reason: 'none' }];
    expect(problems([row('f<float, 64>', 8)], exceptions, 1024)[0]).toMatch(/f<float, 64> on sm_80.*tuned/);
  });

  test('a spill without a reason', () => {
    expect(problems([row('f<float, 256>', 8)], [], 1024)).toEqual([expect.stringMatching(/gives no reason/)]);
    expect(problems([row('f<float, 256>', 8)], [{ kernel: /^f</, reason: 'wide rows' }], 1024)).toEqual([]);
  });

  test('a reason that is no longer needed', () => {
    expect(problems([row('f<float, 256>')], [{ kernel: /^f</, reason: 'wide rows' }], 1024)).toHaveLength(1);
  });

  test('more shared memory than there is', () => {
    expect(problems([{ ...row('f'), shared: 1025 }], [], 1024)).toEqual([
      expect.stringMatching(/1025 bytes/),
    ]);
  });
});

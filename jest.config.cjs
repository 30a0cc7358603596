module.exports = {
  roots: ['<rootDir>/test'],
  testMatch: ['**/*.test.ts'],
  testEnvironment: '<rootDir>/test/support/environment.cjs',
  // Emulated kernels and sanitizers are slow, and CI has few cores.
  testTimeout:
    Number(process.env.REPEAT ?? 1) *
    (process.env.INFINI_TEST_DEVICE === 'cuda-emulated' || process.env.INFINI_STREAM_SANITIZED
      ? 600_000
      : 60_000),
  transform: {
    // ES2022 makes swc lower `using`, which Node 20 does not know.
    '\\.m?ts$': ['@swc/jest', { jsc: { parser: { syntax: 'typescript' }, target: 'es2022' } }],
  },
  // TypeScript writes './x.js' for './x.ts'.
  moduleNameMapper: { '^(\\.{1,2}/.*)\\.js$': '$1', '^infini-stream$': '<rootDir>/lib' },
  moduleFileExtensions: ['js', 'cjs', 'mjs', 'ts', 'mts', 'json', 'node'],
};

import { emulated } from './device';

/**
 * How long the long tests are. The emulation runs a kernel some ten thousand times slower than a GPU, so there they are
 * shorter; every test runs everywhere.
 */
const SIZES = {
  native: {
    /** A stream's whole life: tokens before anything is measured, and tokens of each of two equal windows. */
    warmTokens: 100_000,
    windowTokens: 450_000,
    /** Random configurations and splits of test/parity/splits. */
    splitRuns: 120,
    /** Multiplications of one case of test/parity/grid. */
    gridWork: 1e8,
    /** Random interleavings of test/parity/interleavings. */
    interleavings: 25,
  },
  emulated: { warmTokens: 4000, windowTokens: 8400, splitRuns: 12, gridWork: 1e7, interleavings: 4 },
};

export const sizes = emulated ? SIZES.emulated : SIZES.native;

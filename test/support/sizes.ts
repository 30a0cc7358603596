import { emulated } from './device';

/**
 * How long the long tests are. The emulation runs a kernel some ten thousand times slower than a GPU, and ThreadSanitizer
 * slows the processor's down tenfold, so there they are shorter; every test runs everywhere.
 */
const native = {
  /** A stream's whole life: tokens before anything is measured, and tokens of each of two equal windows. */
  warmTokens: 100_000,
  windowTokens: 450_000,
  /** Random configurations and splits of test/parity/splits. */
  splitRuns: 120,
  /** Multiplications of one case of test/parity/grid. */
  gridWork: 1e8,
  /** Random interleavings of test/parity/interleavings. */
  interleavings: 25,
  /** Of a call in which each element is spoiled in turn. */
  spoiledTokens: 1000,
  /** Entries of the largest attendBatch; streams of the largest prepared batch, and the longest segment there. */
  batchEntries: 4096,
  batchStreams: 64,
  batchSegment: 4096,
  /** Of test/cuda/gathering: rounds, tokens of a call in them, tokens of the call beside them, types of one round. */
  gatheringRounds: 20,
  gatheringTokens: 300,
  gatheringLongTokens: 20_000,
  gatheringTypes: 3,
  /** Of a call of test/cuda/spans. */
  spanTokens: 80_000,
  /** A call that keeps a device busy for a while: in this process, and in those of test/lifecycle. */
  busyCall: { tokens: 4096, headDim: 128, segmentLength: 4096 },
  busyCallOfChild: { tokens: 12_288, headDim: 128, segmentLength: 2048 },
  /** Of a call among many in test/lifecycle/process. */
  crowdTokens: 300,
  /** Milliseconds until what is aborted or closed must have settled. */
  prompt: 250,
  /** Milliseconds of a process there that is to end at once, its start included. */
  shortProcess: 3000,
  /** Of test/model: a prefill against the reference, feeds of several chunks, a long one, the split of one. */
  modelPrefill: 3001,
  modelFeed: 5000,
  modelLongFeed: 60_000,
  modelSplit: 700,
  /** Of test/model/passkey: tokens of a document, and keys at each depth. */
  passkeyTokens: 32_768,
  passkeyKeys: 10,
  /** Of test/snapshot: streams that are restored, files that are spoiled, processes that are killed while they save. */
  snapshotRuns: 100,
  spoiledFiles: 10_000,
  kills: 200,
  /** Of test/soak. */
  soakSeconds: 60,
  soakStreams: 200,
};

const onEmulation: typeof native = {
  warmTokens: 4000,
  windowTokens: 8400,
  splitRuns: 12,
  gridWork: 1e7,
  interleavings: 4,
  spoiledTokens: 70,
  batchEntries: 300,
  batchStreams: 12,
  batchSegment: 64,
  gatheringRounds: 2,
  gatheringTokens: 30,
  gatheringLongTokens: 300,
  gatheringTypes: 1,
  spanTokens: 500,
  busyCall: { tokens: 1024, headDim: 16, segmentLength: 64 },
  busyCallOfChild: { tokens: 256, headDim: 16, segmentLength: 64 },
  crowdTokens: 44,
  prompt: 250,
  shortProcess: 3000,
  modelPrefill: 300,
  modelFeed: 2100,
  modelLongFeed: 2600,
  modelSplit: 120,
  passkeyTokens: 2048,
  passkeyKeys: 1,
  snapshotRuns: 8,
  spoiledFiles: 600,
  kills: 20,
  soakSeconds: 20,
  soakStreams: 12,
};

const underThreadSanitizer: typeof native = {
  ...onEmulation,
  batchEntries: 1000,
  batchStreams: 32,
  // What keeps the processor busy is to do so here.
  busyCall: { tokens: 2048, headDim: 64, segmentLength: 4096 },
  busyCallOfChild: { tokens: 3072, headDim: 64, segmentLength: 2048 },
  crowdTokens: 300,
  prompt: 5000,
  shortProcess: 30_000,
  soakSeconds: 60,
  soakStreams: 60,
};

export const sizes = emulated
  ? onEmulation
  : process.env.INFINI_STREAM_SANITIZED === 'thread'
    ? underThreadSanitizer
    : native;

import { native } from '../../native';
import type { Case } from './contender';
import { bytesPerDecodedToken, bytesPerStatePass, flopsPerToken } from './work';

/** What this processor can do at most: measured here and now (native/cpu/floors.h). */
export interface Limits {
  threads: number;
  /** float32 multiply-adds in registers, operations a second. */
  flops: number;
  /** Products of bfloat16 on tiles, operations a second; 0 where there are none. */
  tileFlops: number;
  /** Bytes a second, reading so many again and again. */
  reads: Bandwidth[];
  /** The same, of a triad: two thirds are read, one is written. */
  triads: Bandwidth[];
}

interface Bandwidth {
  bytes: number;
  bandwidth: number;
}

export interface Floor {
  microsecondsPerToken: number;
  bound: 'arithmetic' | 'bandwidth';
}

const SIZES = [16e3, 64e3, 256e3, 1e6, 4e6, 16e6, 64e6];

export function measureLimits(threads: number): Limits {
  const bandwidths = (kind: 'read' | 'triad') =>
    SIZES.map((bytes) => ({ bytes, bandwidth: native.cpuFloor(kind, threads, bytes) }));
  return {
    threads,
    flops: native.cpuFloor('multiply', threads, 0),
    tileFlops: native.cpuFloor('tiles', threads, 0),
    reads: bandwidths('read'),
    triads: bandwidths('triad'),
  };
}

/** Between the two sizes beside it, in proportion to their logarithms. */
export function bandwidthAt(measured: Bandwidth[], bytes: number): number {
  const next = measured.findIndex((one) => one.bytes >= bytes);
  if (next <= 0) return measured.at(next === 0 ? 0 : -1)?.bandwidth ?? Number.NaN;
  const [low, high] = [measured[next - 1], measured[next]];
  const share = Math.log(bytes / low.bytes) / Math.log(high.bytes / low.bytes);
  return low.bandwidth + share * (high.bandwidth - low.bandwidth);
}

/** The least time one token can take: its operations at the peak rate, or what it must read (and absorbing must write). */
export function floorOf(one: Case, limits: Limits): Floor {
  const tiles = one.dtype === 'bfloat16' ? limits.tileFlops : 0;
  const arithmetic = flopsPerToken(one) / Math.max(limits.flops, tiles);
  const bandwidth = secondsOfBytes(one, limits);
  return {
    microsecondsPerToken: 1e6 * Math.max(arithmetic, bandwidth),
    bound: bandwidth > arithmetic ? 'bandwidth' : 'arithmetic',
  };
}

/** Fast where all of it fits into a cache: the states of many streams do not. Whole segments are held against their operations. */
function secondsOfBytes(one: Case, limits: Limits): number {
  const { work, segment, streams = 1 } = one;
  if (work === 'prefill' || work === 'batch') return 0;
  if (work === 'state') {
    const bytes = bytesPerStatePass(one);
    return bytes / bandwidthAt(limits.reads, bytes) / segment; // but for M, it reads
  }
  const bytes = bytesPerDecodedToken(one);
  return bytes / bandwidthAt(limits.reads, bytes * streams);
}

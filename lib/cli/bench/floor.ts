import { native } from '../../native';
import type { Case } from './contender';
import { bytesPerElement, flopsPerSegment } from './work';

/** What this processor can do at most: measured here and now (native/cpu/floors.h). */
export interface Limits {
  threads: number;
  /** float32 multiply-adds in registers, operations a second. */
  flops: number;
  /** Bytes a second, reading so many again and again. */
  reads: { bytes: number; bandwidth: number }[];
}

export interface Floor {
  microsecondsPerToken: number;
  bound: 'arithmetic' | 'bandwidth';
}

const SIZES = [16e3, 64e3, 256e3, 1e6, 4e6, 16e6, 64e6];

export function measureLimits(threads: number): Limits {
  const reads = SIZES.map((bytes) => ({ bytes, bandwidth: native.cpuFloor(threads, bytes) }));
  return { threads, flops: native.cpuFloor(threads, 0), reads };
}

/** Between the two sizes beside it, in proportion to their logarithms. */
export function bandwidthAt({ reads }: Limits, bytes: number): number {
  const next = reads.findIndex((read) => read.bytes >= bytes);
  if (next <= 0) return reads.at(next === 0 ? 0 : -1)?.bandwidth ?? Number.NaN;
  const [low, high] = [reads[next - 1], reads[next]];
  const share = Math.log(bytes / low.bytes) / Math.log(high.bytes / low.bytes);
  return low.bandwidth + share * (high.bandwidth - low.bandwidth);
}

/** What one decoded token must read, on average over a segment: M, z, and half a segment's keys and values. */
export function bytesPerDecodedToken({ kvHeads, headDim: d, segment, dtype }: Case): number {
  return kvHeads * (d * d * 4 + d * 8 + (segment / 2) * 2 * d * bytesPerElement(dtype));
}

/** The least time one token can take: its operations at the peak rate, or what it must read. */
export function floorOf(one: Case, limits: Limits): Floor {
  const arithmetic = flopsPerSegment(one) / one.segment / limits.flops;
  const bytes = bytesPerDecodedToken(one);
  const bandwidth = one.work === 'decode' ? bytes / bandwidthAt(limits, bytes) : 0;
  return {
    microsecondsPerToken: 1e6 * Math.max(arithmetic, bandwidth),
    bound: bandwidth > arithmetic ? 'bandwidth' : 'arithmetic',
  };
}

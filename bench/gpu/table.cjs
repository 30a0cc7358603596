// The benchmark's results as text.

const { compare } = require('./floors.cjs');

function layOut(header, rows) {
  const lines = [header, ...rows].map((row) => row.map(String));
  const widths = header.map((_, i) => Math.max(...lines.map((line) => line[i].length)));
  const cell = (text, i) => (i === 0 ? text.padEnd(widths[i]) : text.padStart(widths[i]));
  return lines.map((line) => line.map(cell).join('  ').trimEnd()).join('\n');
}

const percent = (fraction) => `${(100 * fraction).toFixed(0)}%`;

/** Adds floor, fraction, tflops and gigabytes to the cases that have a time. */
function withFloors(rates, cases) {
  return cases.map((one) => (one.microseconds === undefined ? one : { ...one, ...compare(one, rates) }));
}

function kernelTable(cases) {
  const rows = cases.map((one) => {
    const name = [one.kind, one.segment, one.dim, one.heads, one.streams];
    if (one.microseconds === undefined) return [...name, 'WRONG', one.wrong, '', '', '', ''];
    const { microseconds, floor, fraction, bound, tflops, gigabytes } = one;
    return [
      ...name,
      microseconds.toFixed(1),
      floor.toFixed(1),
      percent(fraction),
      bound,
      tflops.toFixed(1),
      gigabytes.toFixed(0),
    ];
  });
  return layOut(
    ['kernel', 'N', 'd', 'heads', 'streams', 'us', 'floor', 'of floor', 'bound by', 'TFLOP/s', 'GB/s'],
    rows,
  );
}

const shapeOf = ({ segment, dim, heads, streams, open }) => [segment, dim, heads, streams, open].join();

/** Whole calls beside the time of the kernel in them, where that was measured on the same work. */
function callTable(calls, cases) {
  const rows = calls.map((call) => {
    const kernel = cases.find(
      (one) => call.what.startsWith(one.kind) && shapeOf(one) === shapeOf(call),
    )?.microseconds;
    const above = kernel === undefined ? '' : (call.microseconds - kernel).toFixed(1);
    return [call.what, call.segment, call.dim, call.heads, call.streams, call.microseconds.toFixed(1), above];
  });
  return layOut(['call from JavaScript', 'N', 'd', 'heads', 'streams', 'us', 'above its kernel'], rows);
}

/** Peers on the same shape, as multiples of our step's time. */
function peerTable(peers, cases) {
  const rows = peers.map((peer) => {
    const name = [peer.peer, peer.segment ?? '', peer.dim ?? '', peer.heads ?? '', peer.streams ?? ''];
    if (peer.microseconds === undefined) return [...name, 'skipped', peer.skipped];
    const ours = cases.find(
      (one) => one.kind === 'step' && shapeOf(one) === shapeOf({ ...peer, open: 0 }),
    )?.microseconds;
    return [
      ...name,
      peer.microseconds.toFixed(1),
      ours === undefined ? '' : `${(peer.microseconds / ours).toFixed(2)}x`,
    ];
  });
  return layOut(['peer', 'N', 'd', 'heads', 'streams', 'us', 'of our step'], rows);
}

module.exports = { callTable, kernelTable, peerTable, withFloors };

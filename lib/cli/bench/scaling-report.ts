import { bytes, count, table } from '../format';
import { htmlTable, page, paragraph } from '../report/page';
import { draw, log } from './draw';
import { placeOf } from './report';
import type { Curve, ScalingReport } from './scaling';

const HEADING = ['work', 'along', 'at', 'tokens/s', 'us/token', 'range', 'time, first = 1', 'error', 'bytes'];

const cells = ({ curves }: ScalingReport): string[][] =>
  curves.flatMap(({ work, along, points }) =>
    points.map(({ at, tokensPerSecond, microsecondsPerToken: time, firstIsFaster, about }, i) => [
      i === 0 ? work : '',
      i === 0 ? along : '',
      count(at),
      count(tokensPerSecond),
      time.median.toFixed(2),
      `${time.min.toFixed(2)}..${time.max.toFixed(2)}`,
      (firstIsFaster?.median ?? 1).toFixed(2),
      about?.error?.toExponential(1) ?? '',
      about?.bytes ? bytes(about.bytes) : '',
    ]),
  );

function head(report: ScalingReport): string[] {
  const { threads, node, heads, kvHeads, headDim, segment, dtype, rule } = report;
  return [
    `${placeOf(report)}, ${threads} threads, Node ${node}`,
    `${heads} heads (${kvHeads} for keys and values) of ${headDim}, segments of ${segment}, ${dtype}, rule ${rule}`,
  ];
}

const EXPLANATION =
  'tokens: a segment behind so many, in one call (prefill) or token by token (decode). threads: one stream. streams: one ' +
  'token of each, again and again (step). Medians of interleaved rounds (range: all rounds).';

export const scalingInWords = (report: ScalingReport): string =>
  [...head(report), '', table([HEADING, ...cells(report)], '<<>>>>>>>'), '', EXPLANATION].join('\n');

const TITLES: Record<Curve['along'], string> = {
  tokens: 'tokens before',
  threads: 'threads',
  streams: 'streams',
};

/** Time of a token against the length of the stream; throughput against threads and streams. */
export function scalingChart(curves: Curve[], along: Curve['along']): object {
  const values = curves
    .filter((curve) => curve.along === along)
    .flatMap(({ work, points }) =>
      points.map(({ at, tokensPerSecond, microsecondsPerToken: { median, min, max } }) => ({
        ...{ at, work, tokensPerSecond, median, min, max },
      })),
    );
  const measured = [...new Set(values.map(({ at }) => at))];
  const x = { ...log('at', TITLES[along]), axis: { values: measured } };
  const color = { field: 'work', type: 'nominal', title: null };
  if (along !== 'tokens') {
    const y = { field: 'tokensPerSecond', type: 'quantitative', title: 'tokens/s' };
    const mark = { type: 'line', point: true };
    return { data: { values }, mark, width: 480, height: 240, encoding: { x, y, color } };
  }
  const y = { type: 'quantitative', title: 'microseconds for a token', scale: { zero: true } };
  return {
    data: { values },
    width: 480,
    height: 240,
    encoding: { x, color },
    layer: [
      { mark: { type: 'line', point: true }, encoding: { y: { field: 'median', ...y } } },
      { mark: 'rule', encoding: { y: { field: 'min', ...y }, y2: { field: 'max' } } },
    ],
  };
}

export async function scalingHtml(report: ScalingReport): Promise<string> {
  const axes = [...new Set(report.curves.map(({ along }) => along))];
  const drawn = await Promise.all(
    axes.map(async (along) => `<h2>Along ${along}</h2>\n${await draw(scalingChart(report.curves, along))}`),
  );
  const body = [
    ...head(report).map((line) => paragraph(line)),
    htmlTable([HEADING, ...cells(report)]),
    paragraph(EXPLANATION),
    ...drawn,
    paragraph(`Measured ${report.date} by infini-stream ${report.version}.`),
  ];
  return page('infini-stream bench scaling', body.join('\n'));
}

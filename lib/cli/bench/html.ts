import { htmlTable, page, paragraph } from '../report/page';
import type { Case } from './contender';
import { draw, log } from './draw';
import { bandwidthAt, type Limits } from './floor';
import { cells, HEADING, head, type Report } from './report';
import type { Result } from './run';
import { bytesPerToken, flopsPerToken, nameOf } from './work';

/** Operations for each byte that must come from memory. */
export const intensity = (one: Case): number => flopsPerToken(one) / bytesPerToken(one);

const caseOf = (one: Case) => `${nameOf(one)} ${one.segment} x ${one.headDim}`;

const points = (results: Result[]) =>
  results.flatMap((result) =>
    result.contenders.map(({ name, gflops, microsecondsPerToken }) => ({
      who: name,
      work: nameOf(result),
      what: caseOf(result),
      segment: result.segment,
      head: `heads of ${result.headDim}`,
      intensity: intensity(result),
      gflops,
      microseconds: microsecondsPerToken.median,
    })),
  );

const WHO = { field: 'who', type: 'nominal', title: null, sort: null };
/** Where each result lies under what the processor can do: arithmetic above, bandwidths to the left. */
export function roofline({ results }: Report, limits: Limits): object {
  const dots = points(results);
  const from = Math.min(...dots.map((dot) => dot.intensity)) / 4;
  const to = Math.max(...dots.map((dot) => dot.intensity)) * 2;
  const roofs = [1e6, 16e6, 64e6].flatMap((bytes) => {
    const bandwidth = bandwidthAt(limits.reads, bytes);
    const name = `reading ${bytes / 1e6} MB`;
    const corner = Math.min(to, Math.max(from, limits.flops / bandwidth));
    return [from, corner, to].map((x) => ({
      roof: name,
      intensity: x,
      gflops: Math.min(limits.flops, bandwidth * x) / 1e9,
    }));
  });
  const x = log('intensity', 'operations for each byte from memory');
  const y = log('gflops', 'GFLOP/s');
  return {
    width: 640,
    height: 360,
    layer: [
      {
        data: { values: roofs },
        mark: { type: 'line', color: '#999' },
        encoding: { x, y, strokeDash: { field: 'roof', type: 'nominal', title: null } },
      },
      {
        data: { values: dots.filter(({ gflops }) => gflops !== null) },
        mark: { type: 'point', filled: true, size: 70 },
        encoding: { x, y, color: WHO, shape: { field: 'work', type: 'nominal', title: null } },
      },
    ],
  };
}

/** Time for a token against the length of a segment. */
export function curves({ results }: Report): object {
  return {
    data: { values: points(results) },
    mark: { type: 'line', point: true },
    width: 280,
    height: 220,
    encoding: {
      x: { ...log('segment', 'tokens of a segment') },
      y: { ...log('microseconds', 'microseconds for a token') },
      color: WHO,
      column: { field: 'head', type: 'nominal', title: null, sort: null },
      row: { field: 'work', type: 'nominal', title: null, sort: null },
    },
  };
}

/** How many times as fast infini-stream is as each of the others. */
export function ratios({ results }: Report): object {
  const values = results.flatMap((result) =>
    result.contenders.flatMap(({ name, firstIsFaster }) =>
      firstIsFaster ? [{ who: name, what: caseOf(result), ratio: firstIsFaster.median }] : [],
    ),
  );
  return {
    data: { values },
    mark: 'bar',
    width: 640,
    height: 260,
    encoding: {
      x: { field: 'what', type: 'nominal', title: null, sort: null, axis: { labelAngle: -30 } },
      xOffset: { field: 'who', sort: null },
      y: { field: 'ratio', type: 'quantitative', title: 'infini-stream is so many times as fast' },
      color: WHO,
    },
  };
}

/** A page of tables and pictures that needs nothing but itself. */
export async function htmlReport(report: Report): Promise<string> {
  const { limits, results } = report;
  const pictures: [string, object][] = [['Time for a token', curves(report)]];
  if (limits) pictures.unshift(['Under the roof', roofline(report, limits)]);
  if (results.some(({ contenders }) => contenders.length > 1))
    pictures.push(['Beside others', ratios(report)]);
  const drawn = await Promise.all(
    pictures.map(async ([title, spec]) => `<h2>${title}</h2>\n${await draw(spec)}`),
  );
  const body = [
    ...head(report).map((line) => paragraph(line)),
    htmlTable([HEADING, ...cells(report)]),
    ...drawn,
    paragraph(`Measured ${report.date} by infini-stream ${report.version}.`),
  ];
  return page('infini-stream bench', body.join('\n'));
}

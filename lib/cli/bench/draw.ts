/** Drawn by vega, which is no dependency of the package: who wants pictures of a benchmark installs it. */
export async function draw(spec: object): Promise<string> {
  let vega: typeof import('vega');
  let lite: typeof import('vega-lite');
  try {
    vega = require('vega');
    lite = require('vega-lite');
  } catch {
    throw new Error('--html draws with vega: npm install vega@5 vega-lite@5');
  }
  const { spec: compiled } = lite.compile({ background: 'white', ...spec } as Parameters<
    typeof lite.compile
  >[0]);
  return new vega.View(vega.parse(compiled), { renderer: 'none' }).toSVG();
}

/** An axis in powers of ten. */
export const log = (field: string, title: string) => ({
  field,
  type: 'quantitative',
  title,
  scale: { type: 'log', nice: false },
});

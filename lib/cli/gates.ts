import { writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { Command } from 'commander';
import { addModelOptions, directoryOf, type ModelChoice, openModel } from './models';
import { colourOf, onColour } from './report/colours';
import { type HeatMap, heatMapSvg } from './report/heat-map';
import { page, paragraph } from './report/page';

interface GatesOptions extends ModelChoice {
  json?: boolean;
  html?: string;
  svg?: string;
}

const LEGEND = '0: the head reads its segment alone; 1: the memory alone.';

export function gatesCommand(): Command {
  const command = new Command('gates').description(
    "show what each head of a model takes from the memory: sigmoid(beta), the paper's Figure 3",
  );
  return addModelOptions(command)
    .option('--svg <file>', 'write it as a picture')
    .option('--html <file>', 'write it as a page')
    .option('--json', 'print JSON')
    .action(gates);
}

async function gates({ json, html, svg, ...choice }: GatesOptions): Promise<void> {
  const directory = directoryOf(choice);
  using model = await openModel(directory, 'cpu'); // nothing is computed
  const shares = model.gates.map((row) => row.map((beta) => 1 / (1 + Math.exp(-beta))));
  const map = gateMap(basename(directory), shares);
  if (svg !== undefined) writeFileSync(svg, `${heatMapSvg(map)}\n`);
  if (html !== undefined) writeFileSync(html, page(map.title, `${heatMapSvg(map)}\n${paragraph(LEGEND)}`));
  const { rule } = model.config;
  console.log(
    json
      ? JSON.stringify({ model: { directory, rule }, beta: model.gates, gate: shares }, null, 2)
      : inColumns(map, process.stdout.isTTY && process.stdout.hasColors(256)),
  );
}

export function gateMap(model: string, shares: number[][]): HeatMap {
  return {
    title: `Gates of ${model}: sigmoid(beta) by layer and head`,
    rowTitle: 'layer',
    rows: shares.map((_, layer) => String(layer)),
    columnTitle: 'head',
    columns: shares[0].map((_, head) => String(head)),
    cells: shares.map((row, layer) =>
      row.map((share, head) => ({
        share,
        label: share.toFixed(2),
        note: `layer ${layer}, head ${head}: ${share.toFixed(4)}`,
      })),
    ),
  };
}

/** For a terminal, in colour or without. */
export function inColumns({ title, columns, rows, cells }: HeatMap, colour: boolean): string {
  const show = (label: string, share: number) => (colour ? onColour(label, colourOf(share)) : label);
  const heading = `layer  ${columns.map((name) => `head ${name}`.padStart(8)).join('')}`;
  const lines = cells.map((row, i) =>
    [rows[i].padStart(5), '  ', ...row.map(({ label, share }) => show(label.padStart(8), share))].join(''),
  );
  return [title, '', heading, ...lines, '', LEGEND].join('\n');
}

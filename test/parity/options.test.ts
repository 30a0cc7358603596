import type { Device, StreamConfig } from '../../lib';
import { openTestDevice } from '../support/device';
import { makeInput } from '../support/inputs';
import { Pair } from '../support/pair';
import type { Rng } from '../support/rng';
import { seededTest } from '../support/seeded';
import { DTYPES } from '../support/tensors';

let device: Device;
beforeAll(() => {
  device = openTestDevice();
});
afterAll(() => device.close());

const GROUPS = [
  { heads: 2, kvHeads: 2 },
  { heads: 4, kvHeads: 2 },
  { heads: 4, kvHeads: 1 },
  { heads: 16, kvHeads: 2 },
];
const ROPES = [null, { theta: 10_000 }, { theta: 3.3 }];

async function run(config: StreamConfig, rng: Rng): Promise<void> {
  const pair = new Pair(device, config);
  for (const size of [1, 4, 9, 20, 6]) await pair.attend(makeInput(pair.stream.config, size, rng), 'sync');
  await pair.retrieve(makeInput(pair.stream.config, 7, rng).q, 'sync');
  pair.expectMemory();
  expect(pair.compared).toBe(7);
  expect(pair.stream.segments).toBe(5);
  pair.close();
}

/** Every combination of the options, on small shapes. */
describe.each(['linear', 'delta'] as const)('the %s rule', (rule) => {
  describe.each(DTYPES)('in %s', (dtype) => {
    seededTest(
      'agrees with the reference for all groups, rotations, gates, scales and empty reads',
      async (rng) => {
        let combinations = 0;
        for (const group of GROUPS) {
          for (const rope of ROPES) {
            for (const emptyRead of ['gated', 'local'] as const) {
              for (const gate of [0.7, Array.from({ length: group.heads }, () => 3 * rng.normal())]) {
                const scale = rng.pick([undefined, 0.1, 1, 2]);
                const shape = { headDim: 6, valueDim: 9, segmentLength: 8 };
                await run({ ...group, ...shape, rule, dtype, rope, emptyRead, gate, scale }, rng);
                combinations++;
              }
            }
          }
        }
        expect(combinations).toBe(48);
      },
    );

    seededTest('agrees with the reference where the gate is all but shut, either way', async (rng) => {
      for (const gate of [30, -30, 80, -80]) {
        const config = { heads: 2, headDim: 4, segmentLength: 4, rule, dtype, gate };
        if (dtype === 'float16' && gate > 0) continue; // sigmoid(-30) times a value is below float16
        const pair = new Pair(device, config);
        for (const size of [3, 3, 9]) await pair.attend(makeInput(pair.stream.config, size, rng), 'sync');
        expect(pair.compared).toBe(3);
        pair.close();
      }
    });
  });
});

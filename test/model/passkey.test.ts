import path from 'node:path';
import { loadModel } from '../../lib';
import { Ledger } from '../../lib/cli/passkey/ledger';
import { DEPTHS } from '../../lib/cli/passkey/questions';
import { runTable, type TableSettings } from '../../lib/cli/passkey/run';
import { summarise } from '../../lib/cli/passkey/summary';
import { Task } from '../../lib/cli/passkey/task';
import { DEVICE_ID } from '../support/device';
import { sizes } from '../support/sizes';

// The paper's test (arXiv 2404.07143, section 4.2) on the models that are shipped, with keys of this test's own.
test.each(['linear', 'delta'])(
  'the model of the %s rule says the pass key of a long document',
  async (rule) => {
    using model = await loadModel(path.join(__dirname, `../../models/passkey-${rule}`), {
      device: DEVICE_ID,
    });
    const settings: TableSettings = {
      lengths: [sizes.passkeyTokens],
      depths: [...DEPTHS],
      keys: sizes.passkeyKeys,
      haystack: 'filler',
      seed: 20_261,
    };
    const ledger = Ledger.open(undefined, { seed: settings.seed });
    await runTable(model, settings, ledger, { signal: new AbortController().signal });
    const summary = summarise(ledger, settings, new Task(model), model.config.rule);
    expect(summary.rows).toHaveLength(1);
    for (const { cells, noKey, reset } of summary.rows) {
      expect(cells.map(({ depth }) => depth)).toEqual(DEPTHS);
      for (const { accuracy } of cells) expect(accuracy).toBeGreaterThanOrEqual(0.9);
      expect([noKey.atChance, reset.atChance]).toEqual([true, true]);
    }
  },
  600_000, // under a sanitizer
);

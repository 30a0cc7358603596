import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { addAbortSignal } from 'node:stream';
import { Command } from 'commander';
import { bytes, count } from './format';
import { interruptible } from './interrupt';
import { openModel } from './models';
import { number, whole } from './options';
import { Progress } from './progress';

interface ContinueOptions {
  model: string;
  file?: string;
  prompt?: string;
  maxTokens: number;
  temperature?: number;
  topK?: number;
  seed?: number;
  stop?: string[];
  device: string;
}

export function generateCommand(): Command {
  const collect = (text: string, before: string[] = []) => [...before, text];
  return new Command('generate')
    .description('read a text of any length through a model in constant memory, and go on with it')
    .requiredOption('--model <dir>', "a model's directory")
    .option('--file <path>', 'the text (UTF-8); - reads standard input')
    .option('--prompt <text>', 'the text, or what follows the file')
    .option('--max-tokens <n>', 'tokens to generate', whole(0), 64)
    .option('--temperature <t>', 'draw tokens from softmax(logits / t); 0: the likeliest', number(0), 0)
    .option('--top-k <n>', 'draw among so many of the likeliest only', whole(1))
    .option('--seed <n>', 'of the draw (default: a new one)', whole(0, 2 ** 32 - 1))
    .option('--stop <text>', 'end before this text; may be given again', collect)
    .option('--device <id>', 'auto, cpu, cuda or cuda:<n>', 'auto')
    .action(generate);
}

async function generate(options: ContinueOptions, command: Command): Promise<void> {
  const { file, prompt, model: directory, device, ...generation } = options;
  if (file === undefined && !prompt) command.error('error: --file or --prompt is needed, or both');
  using model = await openModel(directory, device);
  using session = model.createSession();
  await interruptible(async (signal) => {
    const source = await openSource(file, signal);
    const progress = new Progress('reading', source?.size, 'bytes');
    const onProgress = ({ tokens }: { tokens: number }) =>
      progress.update(
        source?.stream.bytesRead ?? 0,
        `${count(tokens)} tokens, ${bytes(session.byteLength)} held`,
      );
    try {
      // One text: its tokens may reach over the end of the file.
      await session.feed(concatenate(source?.stream, prompt), { signal, onProgress });
    } finally {
      progress.stop();
    }
    for await (const { text } of session.generate({ ...generation, signal })) {
      if (!process.stdout.write(text)) await once(process.stdout, 'drain');
    }
    process.stdout.write('\n');
  });
}

/** A stream that the signal ends, even while it waits; its size where that is known. */
async function openSource(file: string | undefined, signal: AbortSignal) {
  if (file === undefined) return undefined;
  if (file === '-') return { stream: addAbortSignal(signal, process.stdin.setEncoding('utf8')) };
  const stats = await stat(file);
  const stream = createReadStream(file, { encoding: 'utf8', signal });
  return { stream, size: stats.isFile() && stats.size > 0 ? stats.size : undefined };
}

async function* concatenate(texts: AsyncIterable<string> | undefined, last = ''): AsyncGenerator<string> {
  if (texts) yield* texts;
  if (last !== '') yield last;
}

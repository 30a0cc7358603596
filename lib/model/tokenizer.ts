import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { expected, fail } from '../errors';

/** A model's tokenizer.json at work. */
export class Tokenizer {
  readonly #tokenizer: HuggingFaceTokenizer;
  /**
   * Whether a text may be cut before a space that a letter follows and tokenized piece by piece: so with byte-level
   * tokenizers, whose words take the space before them. With others only the whole text gives its tokens.
   */
  readonly cuttable: boolean;

  private constructor(tokenizer: HuggingFaceTokenizer, cuttable: boolean) {
    this.#tokenizer = tokenizer;
    this.cuttable = cuttable;
  }

  /** @throws ERR_MODEL when the text is not a tokenizer.json that can be run. */
  static parse(text: string, name: string): Tokenizer {
    let json: Record<string, unknown>;
    try {
      json = JSON.parse(text) as Record<string, unknown>;
    } catch (error) {
      throw fail('ERR_MODEL', `${name}: expected JSON but ${(error as Error).message}`);
    }
    if (typeof json !== 'object' || json === null || typeof json.model !== 'object') {
      throw fail('ERR_MODEL', `${name}: expected a tokenizer with a "model"`);
    }
    try {
      const tokenizer = new Tokenizer(new HuggingFaceTokenizer(json, {}), isCuttable(json));
      tokenizer.encode('a b');
      return tokenizer;
    } catch (error) {
      throw fail('ERR_MODEL', `${name}: expected a tokenizer but ${(error as Error).message}`);
    }
  }

  /** Without the special tokens that some tokenizers put around a text: a stream has no beginning and no end. */
  encode(text: string): number[] {
    if (typeof text !== 'string') throw expected('ERR_INVALID_ARG_TYPE', 'text', 'a string', text);
    if (text === '') return [];
    return this.#tokenizer.encode(text, { add_special_tokens: false }).ids;
  }

  decode(ids: number[]): string {
    if (ids.length === 0) return '';
    return this.#tokenizer.decode(ids, { skip_special_tokens: false, clean_up_tokenization_spaces: false });
  }
}

function isCuttable(json: Record<string, unknown>): boolean {
  const pre = json.pre_tokenizer as { type?: string; pretokenizers?: { type?: string }[] } | null;
  const steps = pre?.type === 'Sequence' ? (pre.pretokenizers ?? []) : [pre];
  const byteLevel = steps.some((step) => step?.type === 'ByteLevel');
  // Something must split words, or merges may reach across spaces.
  const splits = steps.some(
    (step) =>
      step?.type === 'Split' ||
      (step?.type === 'ByteLevel' && (step as { use_regex?: boolean }).use_regex !== false),
  );
  const added = (json.added_tokens ?? []) as { content?: string; lstrip?: boolean; rstrip?: boolean }[];
  const plain = added.every(
    ({ content = '', lstrip, rstrip }) => !content.includes(' ') && !lstrip && !rstrip,
  );
  const prefixed = steps.some((step) => (step as { add_prefix_space?: boolean } | null)?.add_prefix_space);
  return byteLevel && splits && plain && !prefixed && !json.normalizer;
}

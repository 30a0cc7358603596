// What requests may say, as JSON Schema: everything else is a 400 before anything is touched.

/** Token ids or a text, and where they are to begin. */
export type Feed = { tokens?: number[]; text?: string; at?: number };

const wholeNumber = (minimum: number, maximum: number) => ({ type: 'integer', minimum, maximum });
const most = Number.MAX_SAFE_INTEGER;

/** The name of the user is the name of a folder. */
const headers = {
  type: 'object',
  required: ['x-user'],
  properties: { 'x-user': { type: 'string', pattern: '^[a-z0-9_-]{1,64}$' } },
};

const object = (properties: object, rest: object = {}) => ({
  type: 'object',
  additionalProperties: false,
  properties,
  ...rest,
});

export const schemasFor = (vocabulary: number, generateTokens: number) => ({
  user: { headers },
  feed: {
    headers,
    body: object(
      {
        tokens: { type: 'array', minItems: 1, items: wholeNumber(0, vocabulary - 1) },
        text: { type: 'string', minLength: 1 },
        at: wholeNumber(0, most),
      },
      { oneOf: [{ required: ['tokens'] }, { required: ['text'] }] },
    ),
  },
  generate: {
    headers,
    body: object(
      {
        maxTokens: wholeNumber(1, generateTokens),
        temperature: { type: 'number', minimum: 0, maximum: 100 },
        topK: wholeNumber(1, vocabulary),
        seed: wholeNumber(0, 2 ** 32 - 1),
        stop: { type: 'array', maxItems: 16, items: { type: 'string', minLength: 1, maxLength: 64 } },
      },
      { required: ['maxTokens'] },
    ),
  },
});

"""The pass-key task (Mohtashami and Jaggi 2023; arXiv 2404.07143, section 4.2): its text, its tokens, its documents.

Tokens are the task's own words, and single bytes for everything else: any text can be read, but only these words whole.
"""

import json
import math

import torch

FILLER = [
    "The grass is green.",
    "The sky is blue.",
    "The sun is yellow.",
    "Here we go.",
    "There and back again.",
]
STATEMENT = "The pass key is {key}. Remember it. {key} is the pass key."
QUESTION = "What is the pass key? The pass key is "
DIGITS = 5


def byte_alphabet():
    """The printable stand-ins for bytes that byte-level tokenizers write (GPT-2's)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(others)}}


ALPHABET = byte_alphabet()
SPACE = ALPHABET[32]


def task_words():
    text = " ".join(["", *FILLER, STATEMENT.format(key=""), QUESTION])
    for mark in ".?":
        text = text.replace(mark, " ")
    return ["The", *dict.fromkeys(SPACE + word for word in text.split())]


WORDS = task_words()
VOCABULARY = {token: i for i, token in enumerate([*ALPHABET.values(), *WORDS])}
SIZE = len(VOCABULARY)
FIRST_WORD = len(ALPHABET)


def encode(text):
    """As tokenizer.json does, for the task's own sentences: a word with the space before it is one token if it is ours."""
    ids, word = [], ""

    def flush():
        nonlocal word
        whole = VOCABULARY.get(word)
        ids.extend([whole] if whole is not None else [VOCABULARY[c] for c in word])
        word = ""

    for byte in text.encode():
        character = ALPHABET[byte]
        if not character.isalpha() or character == SPACE:
            flush()
        if character.isalpha() or character == SPACE:
            word += character
        else:
            ids.append(VOCABULARY[character])
    flush()
    return ids


def tokenizer_json():
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": "\\d"}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            ],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,  # a word of the vocabulary is one token, any other falls into bytes
            "vocab": VOCABULARY,
            "merges": [],
        },
    }


# ---- documents ----------------------------------------------------------------------------------------------------

SENTENCES = [encode(" " + sentence) for sentence in FILLER]
STATEMENT_TOKENS = len(encode(" " + STATEMENT.format(key="12345")))
QUESTION_IDS = encode(" " + QUESTION)
DIGIT_IDS = torch.tensor([VOCABULARY[str(d)] for d in range(10)])
SPACE_ID = VOCABULARY[SPACE]
LETTERS = [VOCABULARY[c] for c in "etaoinshrdlcumwfgypbvkjxqz"]
LETTER_WEIGHTS = [12, 9, 8, 7.5, 7, 6.7, 6.3, 6.1, 6, 4.2, 4, 2.8, 2.7, 2.4, 2.3, 2.2, 2, 2, 1.9, 1.5, 1, 0.8, 0.2, 0.2, 0.1, 0.1]
CAPITALS = [VOCABULARY[c] for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
MARKS = [VOCABULARY[c] for c in ",;:!?-'\"()"]
STOP, NEWLINE = VOCABULARY["."], VOCABULARY[ALPHABET[10]]


class Documents:
    """Random documents: a haystack, the statement somewhere in it, the question at the end."""

    def __init__(self, seed):
        self.random = torch.Generator().manual_seed(seed)

    def uniform(self):
        return torch.rand((), generator=self.random).item()

    def below(self, n):
        return int(torch.randint(n, (), generator=self.random))

    def choose(self, values, weights=None):
        if weights is None:
            return values[self.below(len(values))]
        return values[int(torch.multinomial(torch.tensor(weights), 1, generator=self.random))]

    # Sentences of the haystacks. No English but the task's own is ever seen in training.
    def filler(self, tokens):
        start = self.below(len(SENTENCES))
        ids = []
        while len(ids) < tokens:
            ids += SENTENCES[start % len(SENTENCES)]
            start += 1
        return ids[:tokens]

    def letters(self, tokens):
        """Words of random letters, bent away from English frequencies at random; sentences, marks, capitals, lines."""
        bend = torch.rand(len(LETTERS), generator=self.random) * 2
        weights = torch.tensor(LETTER_WEIGHTS) ** bend
        drawn = torch.multinomial(weights, tokens, replacement=True, generator=self.random)
        ids = torch.tensor(LETTERS)[drawn]
        chance = torch.rand(tokens, generator=self.random)
        ids[chance < 0.19] = SPACE_ID
        for share, tokens_of in ((0.02, MARKS), (0.015, [STOP]), (0.01, [NEWLINE]), (0.02, CAPITALS), (0.002, DIGIT_IDS.tolist())):
            chance = torch.rand(tokens, generator=self.random)
            places = (chance < share).nonzero().flatten()
            picks = torch.randint(len(tokens_of), (len(places),), generator=self.random)
            ids[places] = torch.tensor(tokens_of)[picks]
        words = torch.rand(tokens, generator=self.random) < 0.06 * self.uniform()
        picks = torch.randint(FIRST_WORD, SIZE, (tokens,), generator=self.random)
        ids = torch.where(words, picks, ids).tolist()
        self.add_numbers(ids, most=tokens // 50)
        return ids

    def add_numbers(self, ids, most):
        """Years, prices, chapters: what looks like a pass key, some of it even behind a word of the statement."""
        for _ in range(self.below(most + 1)):
            number = [SPACE_ID, *DIGIT_IDS[torch.randint(10, (1 + self.below(6),), generator=self.random)].tolist()]
            if self.uniform() < 0.4:
                number.insert(0, FIRST_WORD + self.below(SIZE - FIRST_WORD))
            if self.uniform() < 0.5:
                number.append(STOP)
            if len(number) < len(ids):
                place = self.below(len(ids) - len(number))
                ids[place : place + len(number)] = number

    def soup(self, tokens):
        """Any tokens in any order; in part the task's words and digits, which are the hardest to tell from a statement."""
        own = torch.cat([torch.arange(FIRST_WORD, SIZE), DIGIT_IDS, torch.tensor([SPACE_ID, STOP])])
        share = self.uniform()
        pick = torch.rand(tokens, generator=self.random) < share
        ours = own[torch.randint(len(own), (tokens,), generator=self.random)]
        any_of = torch.randint(SIZE, (tokens,), generator=self.random)
        return torch.where(pick, ours, any_of).tolist()

    def mixture(self, tokens):
        ids = []
        while len(ids) < tokens:
            kind = self.choose([self.filler, self.letters, self.soup], [0.4, 0.4, 0.2])
            ids += kind(5 + self.below(100))
        return ids[:tokens]

    def place(self, room, tokens, length, cut_share):
        """Where the statement goes: anywhere, and oftener where it is hard: at the very beginning, near the question, or
        across a border between segments, where neither part has the whole of it in sight."""
        kind = self.uniform()
        if kind < 0.1:
            return 0
        if kind < 0.2:
            return room - self.below(min(room, 300))
        if kind < 0.2 + cut_share and tokens > length:
            border = (1 + self.below(tokens // length - 1)) * length
            return min(room, max(0, border - 1 - self.below(STATEMENT_TOKENS)))
        return self.below(room + 1)

    def document(self, tokens, length, plain_share, cut_share):
        if self.uniform() < plain_share:
            haystack = self.filler
        else:
            haystack = self.choose([self.letters, self.mixture, self.soup], [0.6, 0.3, 0.1])
        key = [self.below(10) for _ in range(DIGITS)]
        digits = "".join(map(str, key))
        statement = encode(" " + STATEMENT.format(key=digits))
        end = QUESTION_IDS + DIGIT_IDS[key].tolist()
        room = tokens - len(statement) - len(end)
        hay = haystack(room)
        place = self.place(room, tokens, length, cut_share)
        while 0 < place < room and hay[place - 1] != STOP and haystack == self.filler:
            place += 1
        ids = hay[:place] + statement + hay[place:] + end
        if ids[0] == VOCABULARY[SPACE + "The"]:
            ids[0] = VOCABULARY["The"]
        return ids, place, place + len(statement), key

    def batch(self, size, segments, length, most_weight, plain_share, cut_share=0.0):
        """Token ids, how often each segment is written, and the five digits that the model must say.

        A segment without any of the statement is written w times, w log-uniform up to `most_weight`: for the linear rule that
        is exactly a haystack w times as long, at no cost.
        """
        tokens = segments * length
        ids, weights, keys = [], torch.ones(size, segments), []
        for row in range(size):
            document, begin, end, key = self.document(tokens, length, plain_share, cut_share)
            ids.append(document)
            keys.append(key)
            weight = math.exp(self.uniform() * math.log(most_weight)) if most_weight > 1 else 1.0
            for segment in range(segments):
                if end <= segment * length or begin >= (segment + 1) * length:
                    weights[row, segment] = weight
        return torch.tensor(ids), weights, DIGIT_IDS[torch.tensor(keys)]


def write_tokenizer(path):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(tokenizer_json(), file, ensure_ascii=False, indent=1)

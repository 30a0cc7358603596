"""PyTorch and NumPy beside infini-stream on the CPU: a warm worker that a benchmark asks, line by line, over stdin.

    {"offers": true}                     -> {"offers": [{"name": "torch eager", "works": ["prefill", ...]}, ...]}
    {"peer": "torch eager", "work": "prefill", "heads": 8, "headDim": 64, "segment": 512, "dtype": "float32",
     "rule": "delta", "segments": 16, "threads": 2}       -> {"ready": true, "error": 1e-7, "bytes": null} or {"skipped": "why"}
    {"run": true}                                         -> {"seconds": 0.123, "tokens": 8192}

A peer computes what a stream computes (bench/peers/mathematics.py): the outputs of every token, and the memory carried from
segment to segment. Before it may run, one head's outputs of a segment that found a memory, and what that segment makes of the
memory, are compared with float64. Prefill takes
whole segments, decode one token at a time for a whole segment, the absorption included, state absorbs alone. Everything lies as the peer likes
it best: heads first, contiguous, caches allocated before."""

import json
import os
import sys
import time

LIMIT = {"float32": 1e-4, "bfloat16": 3e-2, "float16": 5e-3}  # of the norm
GATE = 0.25
ALL = ["prefill", "decode", "state", "batch", "step"]  # of many streams: batch is prefill and step is decode, of more heads


class Torch:
    def __init__(self, case, compiled):
        import torch
        from mathematics import sigma

        torch.set_num_threads(case["threads"])
        torch.set_grad_enabled(False)
        self.torch, self.sigma, self.delta = torch, sigma, case["rule"] == "delta"
        self.sdpa = torch.nn.functional.scaled_dot_product_attention
        dtype = getattr(torch, case["dtype"])
        heads, dim, segment = case["heads"], case["headDim"], case["segment"]
        generator = torch.Generator().manual_seed(1)
        shape = (heads, case["segments"] * segment, dim)
        self.q, self.k, self.v = (torch.randn(shape, generator=generator).to(dtype) for _ in range(3))
        self.gate = torch.full((heads, 1, 1), GATE, dtype=dtype)
        self.memory = torch.zeros(heads, dim, dim)
        self.normalizer = torch.full((heads, dim, 1), 1e-6)
        self.segment = segment
        self.function = self.compile(self.whole) if compiled else self.whole
        self.absorbing = self.compile(self.absorb) if compiled else self.absorb
        self.tail = self.compile(self.token, dynamic=True) if compiled else self.token
        self.keys, self.values = (torch.zeros(heads, segment, dim, dtype=dtype) for _ in range(2))

    def compile(self, function, **options):
        return self.torch.compile(function, **({"dynamic": False, "fullgraph": True} | options))

    def read(self, rows, memory, normalizer):
        return (rows @ memory.to(rows.dtype)) / (rows @ normalizer.to(rows.dtype))

    def absorb(self, k, v, memory, normalizer):
        rows = self.sigma(k)
        rest = v - self.read(rows, memory, normalizer) if self.delta else v
        return memory + (rows.transpose(-1, -2) @ rest).float(), normalizer + rows.float().sum(-2).unsqueeze(-1)

    def token(self, q, k, v, memory, normalizer, causal=False):
        local = self.sdpa(q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0), is_causal=causal)[0]
        return self.gate * self.read(self.sigma(q), memory, normalizer) + (1 - self.gate) * local

    def whole(self, q, k, v, memory, normalizer):
        out = self.token(q, k, v, memory, normalizer, causal=True)
        return out, *self.absorb(k, v, memory, normalizer)

    def prefill(self):
        outputs = []
        for at in range(0, self.q.shape[1], self.segment):
            part = (x[:, at : at + self.segment] for x in (self.q, self.k, self.v))
            out, self.memory, self.normalizer = self.function(*part, self.memory, self.normalizer)
            outputs.append(out)
        return outputs, self.q.shape[1]

    def decode(self):
        outputs = []
        for t in range(self.segment):
            self.keys[:, t], self.values[:, t] = self.k[:, t], self.v[:, t]
            seen = (self.keys[:, : t + 1], self.values[:, : t + 1])
            outputs.append(self.tail(self.q[:, t : t + 1], *seen, self.memory, self.normalizer))
        self.memory, self.normalizer = self.absorbing(self.keys, self.values, self.memory, self.normalizer)
        return [self.torch.cat(outputs, 1)], self.segment

    def state(self):
        for at in range(0, self.q.shape[1], self.segment):
            part = (x[:, at : at + self.segment] for x in (self.k, self.v))
            self.memory, self.normalizer = self.absorbing(*part, self.memory, self.normalizer)
        return [], self.q.shape[1]

    def error(self, outputs, work):
        """Of head 0 in the first segment of a run that found a memory, against float64."""
        q, k, v, memory, normalizer = (x[0].double() for x in self.before)
        n = len(q)
        future = self.torch.ones(n, n, dtype=self.torch.bool).triu(1)
        local = (q @ k.T / q.shape[-1] ** 0.5).masked_fill(future, -self.torch.inf).softmax(-1) @ v
        rows = self.sigma(q)
        wanted = GATE * (rows @ memory) / (rows @ normalizer) + (1 - GATE) * local
        rows = self.sigma(k)
        rest = v - (rows @ memory) / (rows @ normalizer) if self.delta else v
        found = self.function(*self.before) if work == "prefill" else (None, *self.absorbing(*self.before[1:]))
        pairs = [(out[0], wanted) for out in outputs[:1]]
        pairs.append((found[1][0] - self.before[3][0], rows.T @ rest))
        pairs.append((found[2][0] - self.before[4][0], rows.sum(0).unsqueeze(-1)))
        return max(float((given.double() - exact).norm() / exact.norm()) for given, exact in pairs)

    def remember(self):
        first = (x[:, : self.segment].clone() for x in (self.q, self.k, self.v))
        self.before = (*first, self.memory.clone(), self.normalizer.clone())


class NumPy:
    BLOCK = 256

    def __init__(self, case):
        import numpy

        if case["dtype"] != "float32":
            raise ValueError("NumPy has no " + case["dtype"])
        self.np, self.delta, self.segment = numpy, case["rule"] == "delta", case["segment"]
        random = numpy.random.default_rng(1)
        shape = (case["heads"], case["segments"] * case["segment"], case["headDim"])
        self.q, self.k, self.v = (random.standard_normal(shape, dtype=numpy.float32) for _ in range(3))
        heads, _, dim = shape
        self.memory = numpy.zeros((heads, dim, dim), numpy.float32)
        self.normalizer = numpy.full((heads, dim, 1), 1e-6, numpy.float32)
        self.scale = numpy.float32(dim**-0.5)

    def sigma(self, x):
        return self.np.where(x > 0, x + 1, self.np.exp(self.np.minimum(x, 0)))

    def read(self, rows):
        return (rows @ self.memory) / (rows @ self.normalizer)

    def absorb(self, k, v):
        rows = self.sigma(k)
        rest = v - self.read(rows) if self.delta else v
        self.memory = self.memory + rows.transpose(0, 2, 1) @ rest
        self.normalizer = self.normalizer + rows.sum(1)[..., None]

    def local(self, q, k, v, first):
        """Queries from position `first` on, against the keys up to the last of them."""
        scores = (q @ k.transpose(0, 2, 1)) * self.scale
        if q.shape[1] > 1:
            rows = self.np.arange(q.shape[1])[:, None] + first
            scores = self.np.where(self.np.arange(k.shape[1]) <= rows, scores, -self.np.inf)
        weights = self.np.exp(scores - scores.max(-1, keepdims=True))
        return (weights @ v) / weights.sum(-1, keepdims=True)

    def prefill(self):
        outputs, n = [], self.segment
        for at in range(0, self.q.shape[1], n):
            q, k, v = (x[:, at : at + n] for x in (self.q, self.k, self.v))
            blocks = range(0, n, self.BLOCK)
            local = [self.local(q[:, i : i + self.BLOCK], k[:, : i + self.BLOCK], v[:, : i + self.BLOCK], i) for i in blocks]
            outputs.append(GATE * self.read(self.sigma(q)) + (1 - GATE) * self.np.concatenate(local, 1))
            self.absorb(k, v)
        return outputs, self.q.shape[1]

    def decode(self):
        outputs, n = [], self.segment
        k, v = self.k[:, :n], self.v[:, :n]
        for t in range(n):
            q = self.q[:, t : t + 1]
            outputs.append(GATE * self.read(self.sigma(q)) + (1 - GATE) * self.local(q, k[:, : t + 1], v[:, : t + 1], t))
        self.absorb(k, v)
        return [self.np.concatenate(outputs, 1)], n

    def state(self):
        for at in range(0, self.q.shape[1], self.segment):
            self.absorb(*(x[:, at : at + self.segment] for x in (self.k, self.v)))
        return [], self.q.shape[1]

    def remember(self):
        self.before = (self.memory.copy(), self.normalizer.copy())

    def error(self, outputs, work):
        n = self.segment
        q, k, v = (x[0, :n].astype("float64") for x in (self.q, self.k, self.v))
        memory, normalizer = (x[0].astype("float64") for x in self.before)
        scores = self.np.where(self.np.tri(n, dtype=bool), q @ k.T * q.shape[1] ** -0.5, -self.np.inf)
        weights = self.np.exp(scores - scores.max(-1, keepdims=True))
        rows = self.sigma(q)
        wanted = GATE * (rows @ memory) / (rows @ normalizer) + (1 - GATE) * (weights @ v) / weights.sum(-1, keepdims=True)
        now = self.memory, self.normalizer
        self.memory, self.normalizer = self.before
        self.absorb(self.k[:, :n], self.v[:, :n])
        rows = self.sigma(k)
        rest = v - (rows @ memory) / (rows @ normalizer) if self.delta else v
        gained = self.memory[0] - self.before[0][0], self.normalizer[0] - self.before[1][0]
        self.memory, self.normalizer = now
        exact = [wanted, rows.T @ rest, rows.sum(0)[:, None]]
        pairs = zip((*(out[0] for out in outputs[:1]), *gained), exact if outputs else exact[1:])
        return max(float(self.np.linalg.norm(given - exact) / self.np.linalg.norm(exact)) for given, exact in pairs)


class Cache:
    """Full attention as transformers decode: one token at a time over so many cached ones. No memory, no segments."""

    TOKENS = 32

    def __init__(self, case, cached):
        import torch

        torch.set_num_threads(case["threads"])
        torch.set_grad_enabled(False)
        self.torch, dtype = torch, getattr(torch, case["dtype"])
        generator = torch.Generator().manual_seed(1)
        shape = (1, case["heads"], cached, case["headDim"])
        self.k, self.v = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
        self.q = torch.randn((1, case["heads"], self.TOKENS, case["headDim"]), generator=generator).to(dtype)
        self.bytes = 2 * self.k.numel() * self.k.element_size()

    def decode(self):
        sdpa = self.torch.nn.functional.scaled_dot_product_attention
        outputs = [sdpa(self.q[:, :, t : t + 1], self.k, self.v)[0] for t in range(self.TOKENS)]
        return [self.torch.cat(outputs, 1)], self.TOKENS

    def remember(self):
        pass

    def error(self, outputs, work):
        q, k, v, out = (x[0, 0].double() for x in (self.q, self.k, self.v, outputs[0].unsqueeze(0)))
        wanted = (q @ k.T / q.shape[-1] ** 0.5).softmax(-1) @ v
        return float((out - wanted).norm() / wanted.norm())


PEERS = {
    "torch eager": lambda case: Torch(case, False),
    "torch.compile": lambda case: Torch(case, True),
    "numpy": lambda case: NumPy(case),
    "torch, 4K cached": lambda case: Cache(case, 4096),
    "torch, 16K cached": lambda case: Cache(case, 16384),
    "torch, 64K cached": lambda case: Cache(case, 65536),
}


def offers():
    caches = {"works": ["decode"], "otherWork": True}
    return [{"name": name} | (caches if "cached" in name else {"works": ALL}) for name in PEERS]


def prepare(case):
    peer = PEERS[case["peer"]](case)
    body = getattr(peer, case["work"])
    body()  # compiles, and fills the memory
    peer.remember()
    error = peer.error(body()[0], case["work"])
    if not error <= LIMIT[case["dtype"]]:
        raise ValueError(f"its result is wrong: {error:.1e} from float64")
    return body, {"error": error, "bytes": getattr(peer, "bytes", None)}


def main():
    body = None
    for line in sys.stdin:
        asked = json.loads(line)
        if asked.get("offers"):
            answer = {"offers": offers()}
        elif asked.get("run"):
            start = time.perf_counter()
            _, tokens = body()
            answer = {"seconds": time.perf_counter() - start, "tokens": tokens}
        else:
            try:
                body, about = prepare(asked)
                answer = {"ready": True} | about
            except Exception as error:
                body, answer = None, {"skipped": str(error).strip().splitlines()[0] if str(error) else repr(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("TORCHINDUCTOR_FREEZING", "0")
    main()

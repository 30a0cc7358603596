"""The Infini-Transformer of this project in PyTorch, for training: the same architecture and names as `loadModel` runs.

Llama's pre-norm blocks; each attention is local softmax inside a segment beside retrieval from a compressive memory of all
earlier segments, mixed by one gate per head (Munkhdalai et al. 2024, arXiv 2404.07143, eq. 5 to 11). A whole document goes
through a layer at once, all its segments side by side: only the small matrices M depend on each other in order.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

TINY = 1e-30  # below any normaliser that is not zero


@dataclass
class Config:
    vocab_size: int
    hidden_size: int = 64
    intermediate_size: int = 128
    num_hidden_layers: int = 2
    num_attention_heads: int = 2
    segment_length: int = 128
    rule: str = "linear"
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6

    @property
    def head_dim(self):
        return self.hidden_size // self.num_attention_heads


def sigma(x):
    """ELU(x) + 1, but e^x where x < 0: elu(x) + 1 loses the small values that keep filler out of the memory."""
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp())


def rotate(x, theta):
    """Rotary positions, which restart in each segment: x is [..., position, dim], pairs (i, i + dim / 2)."""
    positions, half = x.shape[-2], x.shape[-1] // 2
    frequencies = theta ** (-torch.arange(half, device=x.device) / half)
    angles = torch.arange(positions, device=x.device)[:, None] * frequencies
    cos, sin = angles.cos(), angles.sin()
    low, high = x[..., :half], x[..., half:]
    return torch.cat([low * cos - high * sin, high * cos + low * sin], -1)


def memories_before(keys, values, weights, rule, state):
    """M and z as each segment finds them, and as the last one leaves them.

    keys: sigma(K), [batch, segment, head, token, d_k]; values: [batch, segment, head, token, d_v]; weights: [batch, segment],
    how many times each segment is written (1, but for the augmentation); state: (M, z) or None.
    """
    weights = weights[:, :, None, None]
    sums = keys.sum(-2) * weights  # [batch, segment, head, d_k]
    if state is None:
        batch, _, heads, _, d_k = keys.shape
        state = keys.new_zeros(batch, heads, d_k, values.shape[-1]), keys.new_zeros(batch, heads, d_k)
    matrix, normaliser = state
    z = torch.cat([normaliser[:, None], normaliser[:, None] + sums.cumsum(1)], 1)
    if rule == "linear":
        writes = (keys.mT @ values) * weights[..., None]
        m = torch.cat([matrix[:, None], matrix[:, None] + writes.cumsum(1)], 1)
        return m[:, :-1], z[:, :-1], (m[:, -1], z[:, -1])
    found = []
    for s in range(keys.shape[1]):
        found.append(matrix)
        key = keys[:, s]
        # Written w times the residual shrinks as if z had grown by the first w - 1 already; w = 1 is eq. (9).
        seen = z[:, s] + (z[:, s + 1] - z[:, s]) * (1 - 1 / weights[:, s])
        residual = values[:, s] - key @ matrix / (key @ seen[..., None]).clamp(min=TINY)
        matrix = matrix + weights[:, s, ..., None] * (key.mT @ residual)
    return torch.stack(found, 1), z[:, :-1], (matrix, z[:, -1])


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.gate = nn.Parameter(torch.zeros(config.num_attention_heads))  # beta of eq. (10)

    def forward(self, x, weights, state, last_only=False):
        """x: [batch, segment, token, width]. last_only: the outputs of the last segment alone."""
        heads = self.config.num_attention_heads

        def split(y):  # -> [batch, segment, head, token, dim]
            return y.unflatten(-1, (heads, -1)).transpose(2, 3)

        k, v = split(self.k_proj(x)), split(self.v_proj(x))
        theta = self.config.rope_theta
        m, z, state = memories_before(sigma(k), v, weights, self.config.rule, state)
        if last_only:
            x, k, v, m, z = (y[:, -1:] for y in (x, k, v, m, z))
        q = split(self.q_proj(x))
        local = F.scaled_dot_product_attention(
            rotate(q, theta).flatten(0, 1), rotate(k, theta).flatten(0, 1), v.flatten(0, 1), is_causal=True
        ).view_as(v)
        queries = sigma(q)
        retrieved = queries @ m / (queries @ z[..., None]).clamp(min=TINY)
        gate = torch.sigmoid(self.gate)[:, None, None]
        mixed = gate * retrieved + (1 - gate) * local
        return self.o_proj(mixed.transpose(2, 3).flatten(-2)), state


class Mlp(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = Mlp(config)

    def forward(self, x, weights, state, last_only=False):
        attended, state = self.self_attn(self.input_layernorm(x), weights, state, last_only)
        x = (x[:, -1:] if last_only else x) + attended
        return x + self.mlp(self.post_attention_layernorm(x)), state


class Decoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)


class InfiniTransformer(nn.Module):
    """Token ids [batch, tokens] to hidden states; tokens is a multiple of the segment length."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        nn.init.normal_(self.model.embed_tokens.weight, std=0.5)

    def forward(self, ids, weights=None, states=None, last_only=False, segment_length=None):
        """last_only: the hidden states of the last segment alone, which spares the last layer most of its work."""
        ids = ids.unflatten(1, (-1, segment_length or self.config.segment_length))
        if weights is None:
            weights = torch.ones(ids.shape[:2])
        x = self.model.embed_tokens(ids)
        layers, after = self.model.layers, []
        for i, layer in enumerate(layers):
            x, state = layer(x, weights, states and states[i], last_only and i == len(layers) - 1)
            after.append(state)
        return self.model.norm(x).flatten(1, 2), after

    def logits(self, hidden):
        return self.lm_head(hidden)

    def gates(self):
        return [torch.sigmoid(layer.self_attn.gate).tolist() for layer in self.model.layers]

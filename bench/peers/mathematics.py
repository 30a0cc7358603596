"""Infini-attention of one segment in PyTorch, as it is timed, and what each peer should give, for one head in float64:
q, k and v are [tokens, dim] there, the state [dim, dim]."""

import torch
from torch.nn import functional


def sigma(x):
    return functional.elu(x) + 1


def infini(q, k, v, memory, normalizer, gate):
    """Outputs, next memory, next normalizer. q, k, v are [streams, heads, tokens, dim], z [streams, heads, dim, 1]."""
    local = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    sq, sk = sigma(q), sigma(k)
    low = memory.to(q.dtype)
    read = (sq @ low) / (sq @ normalizer.to(q.dtype))
    known = (sk @ low) / (sk @ normalizer.to(q.dtype))
    updated = memory + (sk.transpose(-1, -2) @ (v - known)).float()
    return gate * read + (1 - gate) * local, updated, normalizer + sk.float().sum(-2).unsqueeze(-1)


def attention_of_head(q, k, v):
    future = torch.ones(len(q), len(q), dtype=torch.bool, device=q.device).triu(1)
    scores = (q @ k.T / q.shape[-1] ** 0.5).masked_fill(future, -torch.inf)
    return scores.softmax(-1) @ v


def infini_of_head(q, k, v, memory, normalizer, gate):
    """Outputs, and what the segment adds to the memory and to the normalizer."""
    sq, sk = sigma(q), sigma(k)
    read = (sq @ memory) / (sq @ normalizer)
    known = (sk @ memory) / (sk @ normalizer)
    return gate * read + (1 - gate) * attention_of_head(q, k, v), sk.T @ (v - known), sk.sum(0).unsqueeze(-1)


def linear_of_head(q, k, v, state, scale):
    """Linear attention without features or normalisation: outputs, next state."""
    return scale * ((q @ k.T).tril() @ v + q @ state), state + k.T @ v


def delta_of_head(q, k, v, beta, state, scale):
    """The delta rule token by token: outputs, next state."""
    outputs = []
    for t in range(len(q)):
        state = state + beta[t] * torch.outer(k[t], v[t] - k[t] @ state)
        outputs.append(scale * q[t] @ state)
    return torch.stack(outputs), state

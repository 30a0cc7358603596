"""The peers of one shape: pairs of a name and a function that prepares one, and raises where it can not run.

prepare() returns a body, which is what is timed and gives a list of tensors, and a function expected(stream, head) that
lists for each of them what it is, that head of it, the same in float64, and how far off it may be (checks.py)."""

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from mathematics import attention_of_head, delta_of_head, infini, infini_of_head, linear_of_head

GATE = 0.25  # exact in bfloat16, and not the same as 1 - GATE
# Of the norm of a row. bfloat16 has 8 bits: rounding the output alone costs 0.2%.
ATTENTION_LIMIT = 1e-2  # weights and outputs are rounded
INFINI_LIMIT = 2e-2  # and features, memory, what they give, and the sum of both parts
CHUNKED_LIMIT = 2e-2  # states and products within a chunk are rounded


def with_backend(backend, function):
    def body():
        with sdpa_kernel(backend):
            return function()

    return body


def compiled(function):
    """Compiled for the very next shape, as a whole: what can not be is an error, never a run in eager mode."""
    torch._dynamo.reset()  # else the code of another shape, or of another backend, counts
    torch._dynamo.config.error_on_recompile = True
    return torch.compile(function, dynamic=False, fullgraph=True)


def peers(device, segment, dim, heads, streams):
    def draw(*shape):
        return torch.randn(*shape, device=device, dtype=torch.bfloat16)

    q, k, v = (draw(streams, heads, segment, dim) for _ in range(3))
    memory = torch.randn(streams, heads, dim, dim, device=device) * segment
    normalizer = torch.full((streams, heads, dim, 1), 4.0 * segment, device=device)
    gate = torch.full((heads, 1, 1), GATE, device=device, dtype=torch.bfloat16)

    def exact(stream, head, *tensors):
        return [tensor[stream, head].double() for tensor in tensors]

    def attention(backend):
        def body():
            return [functional.scaled_dot_product_attention(q, k, v, is_causal=True)]

        def expected(results, stream, head):
            reference = attention_of_head(*exact(stream, head, q, k, v))
            return [("output", results[0][stream, head], reference, ATTENTION_LIMIT)]

        return with_backend(backend, body), expected

    def infini_attention(backend, function):
        def expected(results, stream, head):
            # The memory by what the segment adds to it: that is small beside what it holds.
            before = exact(stream, head, memory, normalizer)
            output, *after = exact(stream, head, *results)
            references = infini_of_head(*exact(stream, head, q, k, v), *before, GATE)
            found = [output, after[0] - before[0], after[1] - before[1]]
            named = zip(("output", "memory", "normalizer"), found, references)
            return [(*one, INFINI_LIMIT) for one in named]

        return with_backend(backend, lambda: list(function(q, k, v, memory, normalizer, gate))), expected

    def chunked(operator):
        # The libraries want [streams, tokens, heads, dim].
        rows = [x.transpose(1, 2).contiguous() for x in (q, k, v)]
        state, scale = torch.randn(streams, heads, dim, dim, device=device), dim**-0.5
        options = dict(scale=scale, initial_state=state, output_final_state=True)
        if operator == "linear":
            from fla.ops.linear_attn import chunk_linear_attn

            def body():
                return list(chunk_linear_attn(*rows, normalize=False, **options))

            def references(stream, head):
                return linear_of_head(*exact(stream, head, q, k, v, state), scale)

        else:
            from fla.ops.delta_rule import chunk_delta_rule

            rows[1] = functional.normalize(rows[1].float(), dim=-1).to(rows[1].dtype)
            beta = torch.rand(streams, segment, heads, device=device, dtype=torch.bfloat16)

            def body():
                return list(chunk_delta_rule(*rows, beta, **options))

            def references(stream, head):
                tensors = (x.transpose(1, 2) for x in (*rows, beta))
                return delta_of_head(*exact(stream, head, *tensors, state), scale)

        def expected(results, stream, head):
            output, after = references(stream, head)
            found = [results[0][stream, :, head], results[1][stream, head]]
            return [("output", found[0], output, CHUNKED_LIMIT), ("state", found[1], after, CHUNKED_LIMIT)]

        return body, expected

    for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)):
        yield f"sdpa ({name})", lambda backend=backend: attention(backend)
        yield f"infini eager ({name})", lambda backend=backend: infini_attention(backend, infini)
        yield f"infini compiled ({name})", lambda backend=backend: infini_attention(backend, compiled(infini))
    yield "fla linear", lambda: chunked("linear")
    yield "fla delta", lambda: chunked("delta")

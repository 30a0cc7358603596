"""Times what others offer for one segment, on the GPU of this machine, for scripts/gpu-bench.cjs: CUDA events, the L2
cache flushed before each run, bfloat16, delta rule, a memory that is not empty. Prints JSON, one object a line; a peer
that is not installed, or does not run here, is printed with the reason as "skipped".

  sdpa (flash), sdpa (cudnn)     PyTorch's causal attention alone on the segment: no memory
  infini eager, infini compiled  Infini-attention written with PyTorch, its local part by the same two backends
  fla linear, fla delta          flash-linear-attention's chunked kernels: a state, no softmax
"""

import itertools
import json

SEGMENTS, DIMS, HEADS, STREAMS = (512, 2048), (64, 128), (8, 32), (1, 8, 64)


def say(**values):
    print(json.dumps(values), flush=True)


def time_of(torch, body, flush):
    """Median microseconds of a run."""
    for _ in range(3):
        body()
    times = []
    for _ in range(20):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flush.zero_()
        start.record()
        body()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3)
    return sorted(times)[len(times) // 2]


def infini(torch, q, k, v, memory, normalizer, gate):
    """One segment: outputs, next memory, next normalizer. Tensors are [streams, heads, tokens, dim]."""
    functional = torch.nn.functional
    local = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    sq, sk = functional.elu(q) + 1, functional.elu(k) + 1
    low = memory.to(q.dtype)
    read = (sq @ low) / (sq @ normalizer.to(q.dtype))
    known = (sk @ low) / (sk @ normalizer.to(q.dtype))
    updated = memory + (sk.transpose(-1, -2) @ (v - known)).float()
    return gate * read + (1 - gate) * local, updated, normalizer + sk.float().sum(-2).unsqueeze(-1)


def peers(torch, segment, dim, heads, streams):
    """Pairs of a name and a function that makes the body to be timed, and raises where it can not run."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def draw(*shape):
        return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)

    q, k, v = (draw(streams, heads, segment, dim) for _ in range(3))
    memory = torch.randn(streams, heads, dim, dim, device="cuda") * segment
    normalizer = torch.full((streams, heads, dim, 1), 4.0 * segment, device="cuda")
    gate = torch.full((heads, 1, 1), 0.5, device="cuda", dtype=torch.bfloat16)

    def with_backend(backend, function):
        def body():
            with sdpa_kernel(backend):
                return function()

        return body

    def attention():
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    def eager():
        return infini(torch, q, k, v, memory, normalizer, gate)

    def compiled(backend):
        fast = torch.compile(infini, dynamic=False)
        body = with_backend(backend, lambda: fast(torch, q, k, v, memory, normalizer, gate))
        expected, found = with_backend(backend, eager)()[0].float(), body()[0].float()
        if not (found - expected).norm() <= 2e-2 * expected.norm():
            raise RuntimeError("the compiled result differs from the eager one")
        return body

    def chunked(operator):
        # [streams, tokens, heads, dim]
        rows = [x.transpose(1, 2).contiguous() for x in (q, k, v)]
        if operator == "linear":
            from fla.ops.linear_attn import chunk_linear_attn

            return lambda: chunk_linear_attn(*rows, normalize=False)
        from fla.ops.delta_rule import chunk_delta_rule

        keys = torch.nn.functional.normalize(rows[1].float(), dim=-1).to(rows[1].dtype)
        beta = torch.rand(streams, segment, heads, device="cuda", dtype=torch.bfloat16)
        return lambda: chunk_delta_rule(rows[0], keys, rows[2], beta)

    for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)):
        yield f"sdpa ({name})", lambda backend=backend: with_backend(backend, attention)
        yield f"infini eager ({name})", lambda backend=backend: with_backend(backend, eager)
        yield f"infini compiled ({name})", lambda backend=backend: compiled(backend)
    yield "fla linear", lambda: chunked("linear")
    yield "fla delta", lambda: chunked("delta")


def main():
    try:
        import torch
    except ImportError as error:
        say(peer="PyTorch", skipped=str(error))
        return
    if not torch.cuda.is_available():
        say(peer="PyTorch", skipped="it sees no CUDA device")
        return
    torch.manual_seed(0)
    flush = torch.empty(4 * torch.cuda.get_device_properties(0).L2_cache_size, dtype=torch.uint8, device="cuda")
    for segment, dim, heads, streams in itertools.product(SEGMENTS, DIMS, HEADS, STREAMS):
        shape = dict(segment=segment, dim=dim, heads=heads, streams=streams)
        for name, prepare in peers(torch, **shape):
            try:
                body = prepare()
                result = body()
                result = result[0] if isinstance(result, tuple) else result
                if not torch.isfinite(result).all():
                    raise RuntimeError("the result is not finite")
                say(peer=name, version=torch.__version__, **shape, microseconds=time_of(torch, body, flush))
            except Exception as error:  # whatever it is, the others can still be timed
                say(peer=name, **shape, skipped=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


main()

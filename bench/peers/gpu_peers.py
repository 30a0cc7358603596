"""Times what others offer for one segment, on the GPU of this machine, for scripts/gpu-bench.cjs: CUDA events, the L2
cache flushed before each run, bfloat16, a memory that is not empty. Prints JSON, one object a line; a peer that is not
installed, does not run here, or gives a wrong result, is printed with the reason as "skipped".

  sdpa (flash), sdpa (cudnn)     PyTorch's causal attention alone on the segment: no memory
  infini eager, infini compiled  Infini-attention written with PyTorch, its local part by the same two backends
  fla linear, fla delta          flash-linear-attention's chunked kernels: a state, no softmax

  python3 gpu_peers.py [--segments 512,2048] [--dims 64,128] [--heads 8,32] [--streams 1,8,64]
                       [--device cpu] [--spoil N]       to see that it runs, and that a wrong N-th result is refused
"""

import argparse
import itertools
import json
import sys
import time

sys.dont_write_bytecode = True  # the working tree stays as it is


def say(**values):
    print(json.dumps(values), flush=True)


def parse():
    def numbers(text):
        return [int(word) for word in text.split(",")]

    parser = argparse.ArgumentParser()
    for name, shapes in (("segments", [512, 2048]), ("dims", [64, 128]), ("heads", [8, 32]), ("streams", [1, 8, 64])):
        parser.add_argument(f"--{name}", type=numbers, default=shapes)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--spoil", type=int)
    return parser.parse_args()


def cuda_timer(torch):
    """A function that gives the microseconds of one run."""
    flush = torch.empty(4 * torch.cuda.get_device_properties(0).L2_cache_size, dtype=torch.uint8, device="cuda")

    def once(body):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flush.zero_()
        start.record()
        body()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e3

    return once


def cpu_timer(body):
    start = time.perf_counter()
    body()
    return (time.perf_counter() - start) * 1e6


def median(timer, body):
    for _ in range(3):
        body()
    return sorted(timer(body) for _ in range(20))[10]


def measure(prepare, timer, errors_of, spoil):
    body, expected = prepare()
    results = body()
    if spoil is not None and spoil < len(results):
        results[spoil] *= 1.05
    return {"errors": errors_of(results, expected), "microseconds": median(timer, body)}


def first_line(error):
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def main():
    options = parse()
    try:
        import torch
    except ImportError as error:
        say(peer="PyTorch", skipped=str(error))
        return
    if options.device == "cuda" and not torch.cuda.is_available():
        say(peer="PyTorch", skipped="it sees no CUDA device")
        return
    from checks import errors_of
    from peers import peers

    torch.manual_seed(0)
    timer = cuda_timer(torch) if options.device == "cuda" else cpu_timer
    for shape in itertools.product(options.segments, options.dims, options.heads, options.streams):
        named = dict(zip(("segment", "dim", "heads", "streams"), shape))
        for name, prepare in peers(options.device, **named):
            try:
                outcome = measure(prepare, timer, errors_of, options.spoil)
                say(peer=name, version=torch.__version__, **named, **outcome)
            except Exception as error:  # whatever it is, the others can still be timed
                say(peer=name, **named, skipped=first_line(error))


if __name__ == "__main__":
    main()

"""Trains a pass-key model and exports it: python train/train.py --rule linear --out models/passkey-linear"""

import argparse
import json
import math
import os
import time

import torch
from torch.nn import functional as F

import task
from export import export
from model import Config, InfiniTransformer

DIGITS = task.DIGITS

# Each phase: documents of so many segments of so many tokens, haystacks written at most so many times, and the share of them
# that is the task's own filler; `cut`: the share of statements that a border between segments cuts. A phase ends after its steps, or earlier when the loss is below `until`.
PHASES = [
    dict(name="find", length=64, segments=(2, 2), most_weight=1, plain=1.0, cut=0.0, batch=64, until=0.2, steps=5000),
    dict(name="reach", length=128, segments=(2, 6), most_weight=30, plain=0.8, cut=0.2, batch=48, until=0.25, steps=2000),
    dict(name="resist", length=128, segments=(2, 12), most_weight=20000, plain=0.4, cut=0.3, batch=60, until=0, steps=5000),
]
LONGEST = 40  # segments: 5,120 tokens


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rule", choices=["linear", "delta"], default="linear")
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, help="of the last phase")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoint")
    parser.add_argument("--resume")
    return parser.parse_args()


def optimiser(net, rate):
    """Gates learn faster and are not decayed: at the others' rate they would stay where they began."""
    gates = [p for name, p in net.named_parameters() if name.endswith("gate")]
    others = [p for name, p in net.named_parameters() if not name.endswith("gate")]
    groups = [dict(params=others, weight_decay=0.01, peak=rate), dict(params=gates, weight_decay=0.0, peak=10 * rate)]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))


def loss_of(net, ids, weights, keys, length):
    """Cross-entropy of the five digits at the end; the rest of the text is not learned."""
    hidden, _ = net(ids, weights, last_only=True, segment_length=length)
    logits = net.logits(hidden[:, -1 - DIGITS : -1])
    return F.cross_entropy(logits.flatten(0, 1), keys.flatten()), logits.argmax(-1).eq(keys).float().mean().item()


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    config = Config(vocab_size=task.SIZE, rule=options.rule)
    net = InfiniTransformer(config)
    documents = task.Documents(options.seed)
    if options.steps is not None:
        PHASES[-1]["steps"] = options.steps
    rate = 3e-3
    optimizer = optimiser(net, rate)
    print(f"{sum(p.numel() for p in net.parameters())} parameters, rule {options.rule}", flush=True)

    curve, begin, step = [], time.time(), 0
    phases = PHASES
    if options.resume:
        net.load_state_dict(torch.load(options.resume)["net"])
        phases = PHASES[-1:]
    for phase in phases:
        last = phase is PHASES[-1]
        average, right = 2.5, 0.0
        for i in range(phase["steps"]):
            least, most = phase["segments"]
            segments = least + int(torch.randint(most - least + 1, ()))
            size = max(2, phase["batch"] // segments)
            if last and i % 16 == 15:
                segments, size = LONGEST, 2
            ids, weights, keys = documents.batch(size, segments, phase["length"], phase["most_weight"], phase["plain"], phase["cut"])
            decay = 0.5 + 0.5 * math.cos(math.pi * i / phase["steps"]) if last else 1.0
            warm = min(1.0, (step + 1) / 100)
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * warm * decay
            loss, accuracy = loss_of(net, ids, weights, keys, phase["length"])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            step += 1
            average += 0.02 * (loss.item() - average)
            right += 0.02 * (accuracy - right)
            if step % 100 == 0:
                point = dict(step=step, seconds=round(time.time() - begin), cpu_seconds=round(time.process_time()), phase=phase["name"], loss=round(average, 4), accuracy=round(right, 4))
                curve.append(point)
                gates = " ".join(f"{g:.2f}" for layer in net.gates() for g in layer)
                print(*point.values(), "| gates", gates, flush=True)
                if options.checkpoint:
                    torch.save(dict(net=net.state_dict()), options.checkpoint)
            if i > 200 and average < phase["until"]:
                break
    export(net, options.out)
    with open(os.path.join(options.out, "training.json"), "w", encoding="utf-8") as file:
        json.dump(dict(rule=options.rule, seed=options.seed, seconds=round(time.time() - begin), cpu_seconds=round(time.process_time()), phases=PHASES, curve=curve), file)
    print(f"exported to {options.out} after {time.time() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()

"""Writes what PyTorch says after fixed inputs, for the tests: python train/fixture.py models/passkey-linear test/model/fixtures

The inputs are pass-key documents of a few segments; the outputs are the logits after some of their tokens, computed in
float64 from the weights that are shipped.
"""

import json
import os
import sys

import torch
from safetensors.torch import load_file

import task
from model import Config, InfiniTransformer

SEGMENTS = 5
PLACES = [0, 60, 127, 128, 300, 511, 512, 633, 634, 635, 639]


def main(folder, out):
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        stored = json.load(file)
    config = Config(
        vocab_size=stored["vocab_size"],
        hidden_size=stored["hidden_size"],
        intermediate_size=stored["intermediate_size"],
        num_hidden_layers=stored["num_hidden_layers"],
        num_attention_heads=stored["num_attention_heads"],
        segment_length=stored["infini"]["segment_length"],
        rule=stored["infini"]["rule"],
        rope_theta=stored["rope_theta"],
        rms_norm_eps=stored["rms_norm_eps"],
    )
    torch.set_default_dtype(torch.float64)
    net = InfiniTransformer(config)
    net.load_state_dict({name: tensor.double() for name, tensor in load_file(os.path.join(folder, "model.safetensors")).items()})
    documents = task.Documents(seed=977)
    cases = []
    for plain in (1.0, 0.0, 0.0):
        ids, _, _ = documents.batch(1, SEGMENTS, config.segment_length, 1, plain)
        with torch.no_grad():
            hidden, _ = net(ids)
            logits = net.logits(hidden)[0, PLACES]
        rounded = [[float(f"{x:.7g}") for x in row] for row in logits.tolist()]
        cases.append(dict(tokens=ids[0].tolist(), places=PLACES, logits=rounded))
    os.makedirs(out, exist_ok=True)
    path = os.path.join(out, os.path.basename(os.path.normpath(folder)) + ".json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(cases, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

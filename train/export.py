"""Writes a model as `loadModel` reads it: config.json, model.safetensors, tokenizer.json."""

import json
import os

from safetensors.torch import save_file

import task


def config_json(config):
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_attention_heads,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "infini": {"segment_length": config.segment_length, "rule": config.rule, "empty_read": "gated"},
    }


def export(net, folder):
    os.makedirs(folder, exist_ok=True)
    tensors = {name: tensor.detach().contiguous() for name, tensor in net.state_dict().items()}
    save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config_json(net.config), file, indent=2)
        file.write("\n")
    task.write_tokenizer(os.path.join(folder, "tokenizer.json"))

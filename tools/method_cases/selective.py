"""Bias tuning (BitFit, Ben Zaken et al. 2021) and freeze tuning: parts of the base trained in place, saved as a part of its state dict."""

import json
import os

from safetensors.torch import load_file, save_file

from .common import case


def pick(config):
    """Is this tensor of the base trained?"""
    return lambda name: any(k in name for k in config["picked"])


def build(c, base):
    for n, p in base.named_parameters():
        p.requires_grad = pick(c["config"]())(n)
    base.method_case = c
    return base


def load(c, base, folder):
    build(c, base)
    missing = base.load_state_dict(load_file(os.path.join(folder, "adapter_model.safetensors")), strict=False)
    assert not missing.unexpected_keys
    return base


def save(model, folder):
    c = model.method_case
    state = {n: p.detach().contiguous() for n, p in model.named_parameters() if p.requires_grad}
    save_file(state, os.path.join(folder, "adapter_model.safetensors"), metadata={"format": "pt"})
    config = dict(base_model_name_or_path=c["base"], inference_mode=True, task_type="CAUSAL_LM", **c["config"]()["file"])
    json.dump(config, open(os.path.join(folder, "adapter_config.json"), "w"), indent=2, sort_keys=True)


def part(name, what, picked, file, **more):
    more = {**dict(lr=0.02, spread=0.5), **more}
    return case(name, lambda: dict(picked=picked, file=file), what, build=build, load=load, save=save, defaults=dict, **more)


ALL = ["q_proj.bias", "k_proj.bias", "v_proj.bias", "o_proj.bias"]

CASES = [
    part("bitfit", "every bias of llama", ALL, dict(peft_type="BITFIT", target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]),
         optim=dict(max_grad_norm=0.3), method="bitfit"),
    part("bitfit_neox", "biases of norms, fused and plain layers", [".bias"], dict(
        peft_type="BITFIT", target_modules=["input_layernorm", "post_attention_layernorm", "query_key_value", "dense", "dense_h_to_4h",
                                            "dense_4h_to_h", "final_layer_norm"]), base="base_neox", optim=dict(max_grad_norm=0.3), method="bitfit",
         tolerance=dict(update=5e-3, why="biases of keys move by what is left of gradients that nearly cancel")),
    part("freeze", "the last block, without its norms, and the final norm", ["layers.1.self_attn", "layers.1.mlp", "model.norm"], dict(
        peft_type="FREEZE", freeze_trainable_layers=1, freeze_trainable_modules=["self_attn", "mlp"], freeze_extra_modules=["norm"]),
         lr=0.01, spread=0.2, method="freeze"),
    part("freeze_first_neox", "the first block whole", ["layers.0."], dict(
        peft_type="FREEZE", freeze_trainable_layers=-1, freeze_trainable_modules=["all"]), base="base_neox", lr=0.01, spread=0.2,
        method="freeze",
         tolerance=dict(update=5e-3, why="biases of keys move by what is left of gradients that nearly cancel")),
]

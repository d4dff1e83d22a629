#!/usr/bin/env python3
"""Makes tests/golden/combine/: two LoRA adapters and what peft's add_weighted_adapter makes of them.

    python tools/make_combine_fixtures.py

Needs torch, transformers, peft. Never run by the build or the tests. Of each kind the combined update (scale B A) of every
module is kept; dare at density 1, where nothing is drawn."""
import json
import os
import shutil
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
warnings.filterwarnings("ignore")

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)
HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BASE = os.path.join(HERE, "tests/golden/methods/base_llama")
OUT = os.path.join(HERE, "tests/golden/combine")
CASES = [
    dict(kind="linear", weights=[0.7, 0.4]),
    dict(kind="linear", weights=[0.7, -0.4]),
    dict(kind="cat", weights=[0.7, 0.4]),
    dict(kind="svd", weights=[0.7, 0.4]),
    dict(kind="svd", weights=[0.7, 0.4], svd_rank=2),
    dict(kind="ties", weights=[0.7, 0.4], density=0.5),
    dict(kind="ties", weights=[0.7, 0.4], density=0.3, majority_sign_method="frequency"),
    dict(kind="ties_svd", weights=[0.7, 0.9], density=0.5),
    dict(kind="dare_linear", weights=[0.7, 0.4], density=1.0),
    dict(kind="dare_ties", weights=[0.7, 0.4], density=1.0),
    dict(kind="magnitude_prune", weights=[0.7, 0.4], density=0.6),
    dict(kind="magnitude_prune_svd", weights=[0.7, 0.4], density=0.6),
]


def make(name, seed, **config):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(BASE)
    config = LoraConfig(r=4, init_lora_weights=False, task_type="CAUSAL_LM", **config)
    folder = os.path.join(OUT, name)
    peft_model = get_peft_model(model, config)
    peft_model.peft_config["default"].base_model_name_or_path = "base"
    peft_model.save_pretrained(folder, save_embedding_layers=False)
    os.remove(os.path.join(folder, "README.md"))


def combined(case):
    args = {k: v for k, v in case.items() if k not in ("kind", "weights")}
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE), os.path.join(OUT, "a"), adapter_name="a")
    model.load_adapter(os.path.join(OUT, "b"), adapter_name="b")
    model.add_weighted_adapter(["a", "b"], case["weights"], "mix", combination_type=case["kind"], **args)
    updates = {}
    for name, module in model.base_model.model.named_modules():
        if "mix" in getattr(module, "lora_A", {}):
            updates[name] = module.get_delta_weight("mix").detach().contiguous()
    return updates


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    make("a", 1, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    make("b", 2, lora_alpha=12, target_modules=["v_proj", "k_proj"], use_rslora=True)
    tensors = {}
    for i, case in enumerate(CASES):
        for name, update in combined(case).items():
            tensors[f"{i}.{name}"] = update
    save_file(tensors, os.path.join(OUT, "expected.safetensors"))
    with open(os.path.join(OUT, "cases.json"), "w") as f:
        json.dump(CASES, f, indent=1)
        f.write("\n")


main()

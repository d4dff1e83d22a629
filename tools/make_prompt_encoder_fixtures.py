#!/usr/bin/env python3
"""Makes tests/golden/prompt_encoders/: what peft trains where a network writes the virtual tokens, for tests/golden/test_prompt_encoders.c.

    python tools/make_prompt_encoder_fixtures.py [CASE ...]

peft saves what the network wrote, not the network: so these cases begin and end with the network itself.

    <case>/case.json           overrides for our configuration, batches, optimizer, loss and gradient norm of each step
    <case>/start.safetensors   the network under our names (prompt_encoder.*), away from its first numbers, and what it writes
    <case>/end.safetensors     the same after ten steps of AdamW

Bases, batches and steps are those of make_method_fixtures.py."""

import os
import shutil
import sys

import torch
from peft import PrefixTuningConfig, PromptEncoderConfig, get_peft_model
from safetensors.torch import save_file

import make_method_fixtures as methods

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OUT = os.path.join(ROOT, "tests/golden/prompt_encoders")


def p_tuning(task="CAUSAL_LM", **more):
    return PromptEncoderConfig(task_type=task, num_virtual_tokens=4, encoder_hidden_size=12, **more)


LSTM = dict(encoder_reparameterization_type="LSTM", encoder_num_layers=2)
KEYS = ["num_virtual_tokens=4", "encoder_hidden_size=12"]
LSTM_KEYS = KEYS + ["encoder_reparameterization_type=LSTM"]


CASES = {  # configuration, method, our keys, base
    "p_tuning_mlp": (lambda: p_tuning(), "p_tuning", KEYS, "base_llama"),
    "p_tuning_lstm": (lambda: p_tuning(**LSTM), "p_tuning", LSTM_KEYS, "base_llama"),
    "p_tuning_mlp_mt5": (lambda: p_tuning("SEQ_2_SEQ_LM"), "p_tuning", KEYS, "base_mt5"),
    "p_tuning_lstm_t5": (lambda: p_tuning("SEQ_2_SEQ_LM", **LSTM), "p_tuning", LSTM_KEYS, "base_t5_tied"),  # through rows that nobody reads, too
    "p_tuning_mlp_bert": (lambda: p_tuning("SEQ_CLS"), "p_tuning", KEYS, "base_bert"),
    "p_tuning_lstm_roberta": (lambda: p_tuning("SEQ_CLS", **LSTM), "p_tuning", LSTM_KEYS, "base_roberta"),
    "prefix_projection_t5": (lambda: PrefixTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=5, prefix_projection=True, encoder_hidden_size=10),
                             "prefix_tuning", ["num_virtual_tokens=5", "encoder_hidden_size=10", "prefix_projection=true"], "base_t5_tied"),
    "prefix_projection_xlmr": (lambda: PrefixTuningConfig(task_type="TOKEN_CLS", num_virtual_tokens=5, prefix_projection=True, encoder_hidden_size=10),
                               "prefix_tuning", ["num_virtual_tokens=5", "encoder_hidden_size=10", "prefix_projection=true"], "base_xlmr"),
    "prefix_projection": (lambda: PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5, prefix_projection=True, encoder_hidden_size=10),
                          "prefix_tuning", ["num_virtual_tokens=5", "encoder_hidden_size=10", "prefix_projection=true"], "base_llama"),
}


def tensors(model):
    out = {"prompt_encoder." + n: p.detach().clone() for n, p in model.prompt_encoder["default"].named_parameters()}
    for n, p in model.named_parameters():  # the head, as peft's file has it
        if "modules_to_save" in n:
            out[n.replace("base_model.base_model", "base_model", 1).replace("modules_to_save.default.", "")] = p.detach().clone()
    out["prompt_embeddings"] = model.get_prompt_embedding_to_save("default").detach().clone().contiguous()
    return out


def make(name):
    config, method, keys, base = CASES[name]
    folder = os.path.join(OUT, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    gen = torch.Generator().manual_seed(sum(map(ord, name)))
    torch.manual_seed(1)
    batches = methods.make_batches(gen, methods.task_of(base))
    model = get_peft_model(methods.load_base(dict(base=base), methods.ROOT + "/tests/golden/methods"), config()).eval()
    model.prompt_encoder["default"].train()  # torch's LSTM wants it; there is no dropout
    for n, p in sorted(model.prompt_encoder["default"].named_parameters()):
        r = torch.randn(p.shape, generator=gen)
        p.data = r if "embedding" in n else 0.3 * r if "bias" in n else 1.3 * r / p.shape[-1] ** 0.5
    save_file(tensors(model), os.path.join(folder, "start.safetensors"))
    optim = dict(methods.OPTIM, lr=0.02, max_grad_norm=0.3)
    log = methods.train(model, batches, dict(groups=None, before_step=None, extra_loss=None, after_step=None), optim)
    save_file(tensors(model), os.path.join(folder, "end.safetensors"))
    methods.dump(folder, dict(base=base, method=method, keys=[f"peft.{method}.{k}" for k in keys], optim=optim, steps=log, batches=batches))
    print(f"{name:20} loss {log[0]['loss']:.4f} -> {log[-1]['loss']:.4f}  gradient {log[0]['grad_norm']:.3f}")


for case in sys.argv[1:] or CASES:
    make(case)

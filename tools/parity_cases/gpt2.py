"""GPT-2: models/gpt2."""

import re

import torch

from parity_cases.common import VOCAB, case, off_attribute, off_config, off_forward, off_head

BASE = dict(
    vocab_size=VOCAB,
    n_embd=32,
    n_layer=2,
    n_head=4,
    n_positions=64,
    resid_pdrop=0.0,
    embd_pdrop=0.0,
    attn_pdrop=0.0,
    bos_token_id=1,
    eos_token_id=2,
)
ALL = ["c_attn", "c_proj", "c_fc"]


def scale(name, p, r):
    if re.search("wte|wpe", name):
        return 0.7 * r
    fan_in = p.shape[1] if "lm_head" in name else p.shape[0]  # Conv1D: (in, out)
    return (1.6 if "c_attn" in name else 1.2) * r / fan_in**0.5


def gpt2(name, what, off, targets=ALL, lora=None, **kw):
    return case(name, "gpt2", what, off, base=BASE, targets=targets, scale=scale, lora=dict(fan_in_fan_out=True, **(lora or {})), **kw)


def off_positions():
    return off_forward(r"wpe$", lambda m: lambda x: torch.nn.functional.embedding(x * 0, m.weight))


def bare(state):
    """As the first files: no "transformer.", the causal mask stored beside the weights."""
    state = {re.sub(r"^transformer\.", "", n): t for n, t in state.items()}
    for i in range(2):
        state[f"h.{i}.attn.bias"] = torch.ones(1, 1, 64, 64).tril()
        state[f"h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    return state


CASES = [
    gpt2("gpt2", "learned positions, Conv1D", off_positions()),
    gpt2("gpt2_c_attn", "PEFT's default target", off_config(activation_function="relu"), targets=["c_attn"], n_inner=48),
    gpt2("gpt2_layer_scale", "scores scaled by the layer, too", off_config(scale_attn_by_inverse_layer_idx=False),
         scale_attn_by_inverse_layer_idx=True, reorder_and_upcast_attn=True, n_layer=3),
    gpt2("gpt2_no_scale", "scores not scaled", off_config(scale_attn_weights=True), scale_attn_weights=False, logits_only=True),
    gpt2("gpt2_old_files", "names without transformer., stored masks", off_positions(), store=bare),
    gpt2("gpt2_untied", "two matrices, relu, bf16", off_head("tied"), tie_word_embeddings=False, activation_function="relu",
         dtype="bfloat16", targets=ALL + ["lm_head"]),
    gpt2("gpt2_saved", "a Conv1D and the positions trained whole", off_positions(), targets=["c_attn"], n_inner=48, optim=dict(eps=1e-4),
         lora=dict(modules_to_save=["mlp.c_fc", "wpe"])),
    gpt2("gpt2_full", "every weight trained", off_positions(), full=True, n_inner=48, optim=dict(eps=1e-4)),
]

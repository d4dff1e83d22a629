"""What the families' cases share: case(name, arch, what, off, ...), the tiny configuration, and ways to switch a feature off.

A family is one module of this folder with CASES, a list of case(...). `off` says how the model would be computed without the
feature that the case is about: dict(config=...) changes the configuration, dict(patch=...) the model (and may return a function
that undoes it). tools/make_parity_fixtures.py refuses a case whose logits would hardly move.
"""

import copy
import re

import torch
from peft import PeftModel

VOCAB = 64

BASE = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
    tie_word_embeddings=False,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=None,
)


def scale(name, p, r):
    """Weights of a Linear or Embedding, made of normal numbers r, large enough to be heard in the logits; biases and norms are
    not asked for."""
    if re.search("embed", name):
        return 0.7 * r
    if re.search(r"[qk]_proj", name):
        return 1.8 * r / p.shape[1] ** 0.5
    return (1.5 if re.search("query_key_value", name) else 1.2) * r / p.shape[1] ** 0.5


def rope(kind="default", theta=10000.0, **kw):
    return dict(rope_type=kind, rope_theta=theta, **kw)


def case(name, arch, what, off, lora=None, dialect=5, dtype="float32", store=None, full=False, lengths=(5, 24), logits_only=False,
         alone=False, base=BASE, targets=None, scale=scale, edit=None, optim=None, prepare=lambda model: None, attention="eager",
         seq2seq=False, untied=False, **cfg):
    """lora: keys of LoraConfig; targets: its target_modules where it has none. dialect: transformers 4 or 5 of config.json.
    store(state) -> the tensors as the file has them. edit(dict) changes config.json. full: every weight is trained.
    lengths: of samples. logits_only: no training. alone: one sample at a time, for what looks at the length of a batch.
    optim: keys of the optimizer that differ. A larger eps where a gradient is zero but for rounding (the bias of keys that do not
    turn: softmax does not see it), which AdamW would blow up to full steps.
    prepare(model) changes what transformers has loaded into what the case is about. attention: its attn_implementation.
    seq2seq: encoder and decoder; untied: with a head of its own, though transformers 5 would tie it.
    base, scale: the configuration that cfg adds to, and the size of the weights. cfg: the rest of config.json."""
    return dict(name=name, arch=arch, what=what, off=off, lora=lora or {}, dialect=dialect, dtype=dtype, store=store, full=full,
                lengths=lengths, logits_only=logits_only, alone=alone, base=base, targets=targets or LLAMA_ALL, scale=scale,
                edit=edit, optim=optim or {}, prepare=prepare, attention=attention, seq2seq=seq2seq, untied=untied, cfg=cfg)


LLAMA_ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


# ---- switching a feature off -------------------------------------------------------------------------------------------


def off_config(**changes):
    def make(cfg):
        cfg = copy.deepcopy(cfg)
        for k, v in changes.items():
            setattr(cfg, k, v)
        return cfg

    return dict(config=make)


def off_biases(pattern):
    def patch(model):
        hit = 0
        for n, p in model.named_parameters():
            if n.endswith(".bias") and re.search(pattern, n):
                p.data.zero_()
                hit += 1
        assert hit > 0, pattern

    return dict(patch=patch)


def off_scale():
    def patch(model):
        cfg = model.config
        for m in model.modules():
            if hasattr(m, "scaling") and hasattr(m, "q_proj"):
                m.scaling = (cfg.hidden_size / cfg.num_attention_heads) ** -0.5

    return dict(patch=patch)


def off_head(how):
    def patch(model):
        m = model.get_base_model() if isinstance(model, PeftModel) else model
        e = m.get_input_embeddings().weight.data
        head = torch.nn.Parameter(e.clone() if how == "tied" else e.roll(1, 0).clone(), requires_grad=False)
        layer = m.get_output_embeddings()
        getattr(layer, "base_layer", layer).weight = head

    return dict(patch=patch)


def off_positions():
    """Every position 0: no rotation."""

    def patch(model):
        for m in model.modules():
            if hasattr(m, "inv_freq"):
                m.inv_freq.zero_()

    return dict(patch=patch)


def off_forward(pattern, forward):
    """Modules of this name compute something else: forward(module) -> function."""

    def patch(model):
        hit = 0
        for n, m in model.named_modules():
            if re.search(pattern, n):
                m.forward = forward(m)
                hit += 1
        assert hit > 0, pattern

    return dict(patch=patch)


def off_attribute(**changes):
    """Attributes of every module that has them."""

    def patch(model):
        hit = 0
        for m in model.modules():
            for k, v in changes.items():
                if hasattr(m, k) and not isinstance(getattr(m, k), torch.nn.Module):
                    setattr(m, k, v)
                    hit += 1
        assert hit > 0, changes

    return dict(patch=patch)

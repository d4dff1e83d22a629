#!/usr/bin/env python3
"""Makes tests/golden/rope/frequencies.json: inverse frequencies and attention factors of transformers' RoPE types.

    python tools/make_rope_fixtures.py

Needs torch and transformers 5. Each case is a config.json as it may stand in a folder (both dialects) and what
modeling_rope_utils makes of it. For the dynamic type frequencies are given for several lengths of a sample.
"""

import json
import os

import torch
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SHAPE = dict(hidden_size=64, num_attention_heads=4, num_key_value_heads=2, vocab_size=32, num_hidden_layers=1, intermediate_size=8)


def old(scaling=None, **kw):
    return dict(SHAPE, model_type="llama", rope_scaling=scaling, **kw)


def new(params, **kw):
    return dict(SHAPE, model_type="llama", rope_parameters=params, **kw)


CASES = dict(
    nothing=dict(SHAPE, model_type="llama"),
    old_default=old(rope_theta=10000.0),
    old_theta=old(rope_theta=500000.0, head_dim=32),
    old_integer_theta=old(rope_theta=1000000),
    old_linear=old(dict(type="linear", factor=2.5), rope_theta=10000.0),
    old_dynamic=old(dict(type="dynamic", factor=2.0), rope_theta=10000.0, max_position_embeddings=64),
    old_llama3=old(dict(rope_type="llama3", factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192),
                   rope_theta=500000.0, max_position_embeddings=131072, head_dim=64),
    old_yarn=old(dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32768), rope_theta=1000000.0,
                 max_position_embeddings=131072, head_dim=64),
    old_yarn_type=old(dict(type="yarn", factor=16.0, original_max_position_embeddings=4096), rope_theta=10000.0, head_dim=64),
    old_yarn_no_original=old(dict(rope_type="yarn", factor=2.0), rope_theta=10000.0, max_position_embeddings=4096, head_dim=64),
    new_default=new(dict(rope_type="default", rope_theta=100000.0)),
    new_without_type=new(dict(rope_theta=777.0)),
    new_linear=new(dict(rope_type="linear", rope_theta=10000.0, factor=8.0)),
    new_dynamic=new(dict(rope_type="dynamic", rope_theta=5000.0, factor=4.0), max_position_embeddings=128, head_dim=32),
    new_llama3=new(dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                        original_max_position_embeddings=8192), max_position_embeddings=131072, head_dim=128),
    new_llama3_odd=new(dict(rope_type="llama3", rope_theta=10000.0, factor=3.0, low_freq_factor=2.0, high_freq_factor=5.0,
                            original_max_position_embeddings=256), head_dim=64),
    new_yarn=new(dict(rope_type="yarn", rope_theta=150000.0, factor=32.0, beta_fast=32.0, beta_slow=1.0, truncate=False,
                      original_max_position_embeddings=4096), max_position_embeddings=131072, head_dim=64),
    new_yarn_mscale=new(dict(rope_type="yarn", rope_theta=10000.0, factor=40.0, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=0.5,
                             original_max_position_embeddings=4096), max_position_embeddings=163840, head_dim=64),
    new_yarn_one_mscale=new(dict(rope_type="yarn", rope_theta=10000.0, factor=40.0, mscale=0.707,
                                 original_max_position_embeddings=4096), max_position_embeddings=163840, head_dim=64),
    new_yarn_attention_factor=new(dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, attention_factor=0.9, beta_fast=20.0, beta_slow=2.0,
                                       original_max_position_embeddings=1024), max_position_embeddings=4096, head_dim=64),
    both_dialects=dict(SHAPE, model_type="llama", rope_theta=300.0, rope_parameters=dict(rope_type="linear", factor=2.0)),
    outer_original=old(dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=99), rope_theta=10000.0,
                       original_max_position_embeddings=512, head_dim=64),
    smollm3_default_theta=dict(SHAPE, model_type="smollm3"),
)


def frequencies(cfg, length=None):
    kind = cfg.rope_parameters["rope_type"]
    if kind == "default":
        return LlamaRotaryEmbedding.compute_default_rope_parameters(cfg)
    return ROPE_INIT_FUNCTIONS[kind](cfg, None, seq_len=length)


def main():
    out = []
    for name, text in CASES.items():
        kw = json.loads(json.dumps(text))
        cfg = AutoConfig.for_model(kw.pop("model_type"), **kw)
        freq, factor = frequencies(cfg)
        c = dict(name=name, config=text, head_dim=getattr(cfg, "head_dim", None) or cfg.hidden_size // cfg.num_attention_heads,
                 max_positions=cfg.max_position_embeddings, type=cfg.rope_parameters["rope_type"],
                 default_theta=type(cfg).default_theta, inv_freq=freq.tolist(), attention_factor=factor)
        if c["type"] == "dynamic":
            n = cfg.max_position_embeddings
            c["lengths"] = [dict(length=l, inv_freq=frequencies(cfg, l)[0].tolist()) for l in (n // 2, n, n + 1, 2 * n, 7 * n)]
        out.append(c)
    folder = os.path.join(ROOT, "tests/golden/rope")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "frequencies.json"), "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(c) for c in out) + "\n]\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

"""Phi-1, 1.5 and 2: models/phi."""

import torch

from parity_cases.common import VOCAB, case, off_biases, off_config, off_forward, off_positions
from parity_cases.llama import off_grouping

BASE = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=64,
    bos_token_id=1,
    eos_token_id=2,
)
ALL = ["q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"]


def phi(name, what, off, targets=ALL, **kw):
    return case(name, "phi", what, off, base=BASE, targets=targets, **kw)


def rope(partial, **kw):
    return dict(rope_parameters=dict(dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=partial), **kw))


CASES = [
    phi("phi_partial", "half of the columns turn", off_config(**rope(1.0)), **rope(0.5)),
    phi("phi_2", "as Phi-2: dialect 4, partial_rotary_factor 0.4 of 20 columns", off_config(**rope(0.2)), dialect=4,
        hidden_size=40, num_attention_heads=2, targets=["q_proj", "v_proj", "fc1", "fc2"], **rope(0.4)),
    phi("phi_qk_norm", "norm of q and k per head", off_forward(r"[qk]_layernorm$", lambda m: lambda x: x), qk_layernorm=True,
        lora=dict(modules_to_save=["q_layernorm", "input_layernorm"]), **rope(0.5)),
    phi("phi_gqa", "two heads per key head", off_grouping("interleaved"), num_key_value_heads=2, **rope(0.5)),
    phi("phi_head_bias", "the head has a bias; no rope_parameters, gelu", off_biases("lm_head"), hidden_act="gelu", logits_only=True,
        edit=lambda cfg: (cfg.pop("rope_parameters"), cfg.pop("hidden_act"), cfg.update(hidden_act="gelu")) and None),
    phi("phi_tied", "one matrix for embedding and head", off_positions(), tie_word_embeddings=True, full=True, optim=dict(eps=1e-4), **rope(0.5)),
]

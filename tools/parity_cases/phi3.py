"""Phi-3 and Phi-4: models/phi3."""

from functools import partial

from parity_cases import common
from parity_cases.common import BASE, off_attribute, off_config, off_positions, rope

PHI3 = dict(BASE, num_hidden_layers=3, original_max_position_embeddings=16)
FUSED = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
case = partial(common.case, base=PHI3, targets=FUSED)

SHORT, LONG = [1.0, 1.1, 1.3, 1.6], [1.2, 2.0, 4.0, 7.0]


def longrope(**kw):
    return rope("longrope", theta=100.0, short_factor=SHORT, long_factor=LONG, **kw)


def old_longrope(cfg):
    """rope_scaling as Phi-3's own configs have it."""
    r = cfg.pop("rope_parameters")
    cfg["rope_theta"] = r["rope_theta"]
    cfg["rope_scaling"] = dict(type="longrope", short_factor=r["short_factor"], long_factor=r["long_factor"])
    cfg["torch_dtype"] = cfg.pop("dtype")


CASES = [
    case("phi3", "phi3", "q, k and v in one projection, gate and up in another", off_positions(), rope_parameters=rope()),
    case("phi3_partial", "phi3", "RoPE over a part of a head; tied", off_config(rope_parameters=rope(partial_rotary_factor=1.0)),
         rope_parameters=rope(partial_rotary_factor=0.5), tie_word_embeddings=True),
    case("phi3_window", "phi3", "a window in every layer", off_config(sliding_window=None), sliding_window=6,
         num_key_value_heads=4, rope_parameters=rope()),
    case("phi3_longrope", "phi3", "LongRoPE, samples shorter and longer than the original context",
         off_config(rope_parameters=dict(longrope(), long_factor=SHORT)), rope_parameters=longrope(), lengths=(8, 30), alone=True),
    case("phi3_longrope_short", "phi3", "short factors and the attention factor of LongRoPE, in the words of Phi-3's own configs",
         off_attribute(attention_scaling=1.0), rope_parameters=longrope(), lengths=(5, 15), edit=old_longrope, logits_only=True),
    case("phi3_full", "phi3", "every weight trained", off_positions(), full=True, rope_parameters=rope()),
]

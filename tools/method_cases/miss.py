"""MiSS (Kang and Yin 2024): shards that do not divide the input, mini, and blocks of the weight (bat)."""

from peft import MissConfig

from .common import HEAD, LLAMA_ALL, NEOX_ALL, case


def config(targets, **more):
    return lambda: MissConfig(**{**dict(r=4, target_modules=targets, task_type="CAUSAL_LM"), **more})


def start(name, data, r):
    return 0.1 * r if "miss_block" in name else None


CASES = [
    case("miss", config(LLAMA_ALL, r=5, init_weights=False), "a last shard that is shorter", start=start),
    case("miss_mini", config(["q_proj", "up_proj", "down_proj"], init_weights="mini", mini_r=8), "mini_r", start=start),
    case("miss_bat", config(["v_proj", "gate_proj", "down_proj"], init_weights="bat", r=8), "blocks of the weight itself", start=start),
    case("miss_neox", config(NEOX_ALL, r=8), "fused query_key_value", base="base_neox", start=start),
    case("miss_head", config(["lm_head", "dense"], init_weights=False), "the head", base="base_neox", start=start, not_written=HEAD),
]

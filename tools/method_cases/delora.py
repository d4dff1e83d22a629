"""DeLoRA (Bini et al. 2025): bounded updates, sizes by pattern."""

from peft import DeloraConfig

from .common import LLAMA_ALL, NEOX_ALL, case


def config(targets, **more):
    return lambda: DeloraConfig(**{**dict(r=3, delora_lambda=2, target_modules=targets, init_weights=False, task_type="CAUSAL_LM"), **more})


def start(name, data, r):
    return data * (1 + 0.3 * r) if "lambda" in name else 0.5 * r if "delora" in name else None


CASES = [
    case("delora", config(LLAMA_ALL), "all linear layers", start=start),
    case("delora_patterns", config(["q_proj", "up_proj"], rank_pattern={"up_proj": 5}, lambda_pattern={"q_proj": 1}, exclude_modules=["1.mlp.up_proj"]),
         "patterns", start=start, lr=0.03, optim=dict(max_grad_norm=0.25)),
    case("delora_neox", config(NEOX_ALL), "fused query_key_value", base="base_neox", start=start, lr=0.03, optim=dict(max_grad_norm=0.25)),
]

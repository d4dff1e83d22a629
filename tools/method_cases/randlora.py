"""RandLoRA (Albert et al. 2025): dense and sparse bases, layers of several sizes."""

from peft import RandLoraConfig

from .common import LLAMA_ALL, NEOX_ALL, case


def config(targets, **more):
    return lambda: RandLoraConfig(**{**dict(r=5, randlora_alpha=20, target_modules=targets, init_weights=False, task_type="CAUSAL_LM"), **more})


def start(name, data, r):
    return 0.3 * r if "lambda" in name else data * (1 + 0.5 * r) if "gamma" in name else None


AGAIN = {f"{module}.randlora_{base}": "the shared bases once more" for module in LLAMA_ALL + NEOX_ALL for base in "AB"}

CASES = [
    case("randlora", config(["q_proj", "k_proj", "up_proj", "down_proj"], layers_to_transform=[1]), "layers of several sizes share two matrices", start=start, not_written=AGAIN),
    case("randlora_sparse", config(["q_proj", "down_proj"], sparse=True, projection_prng_key=3), "sparse bases", start=start, not_written=AGAIN),
    case("randlora_neox", config(["query_key_value"], r=8, layers_to_transform=[1]), "fused query_key_value", base="base_neox", start=start, not_written=AGAIN),
]

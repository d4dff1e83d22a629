"""HRA (Yuan et al. 2024): reflections one after the other, and at the space of all of them."""

from peft import HRAConfig

from .common import LLAMA_ALL, NEOX_ALL, case


def config(targets, **more):
    return lambda: HRAConfig(**{**dict(r=3, target_modules=targets, init_weights=False, task_type="CAUSAL_LM"), **more})


CASES = [
    case("hra", config(LLAMA_ALL), "reflections in order", start=lambda n, p, r: r if "hra_u" in n else None),
    case("hra_gs", config(["q_proj", "up_proj", "down_proj"], apply_GS=True, r=4), "apply_GS"),
    case("hra_neox", config(NEOX_ALL, r=2), "fused query_key_value", base="base_neox"),
]

"""GraLoRA (Jung et al. 2025): blocks, with a plain LoRA beside, the head."""

from peft import GraloraConfig

from .common import HEAD, LLAMA_ALL, NEOX_ALL, case


def config(targets, **more):
    return lambda: GraloraConfig(**{**dict(r=4, alpha=8, target_modules=targets, init_weights=False, task_type="CAUSAL_LM"), **more})


def start(name, data, r):
    return 1.2 * r / data.shape[-2] ** 0.5 if "gralora_A" in name else 0.3 * r if "gralora_B" in name else None


CASES = [
    case("gralora", config(LLAMA_ALL), "all linear layers", start=start),
    case("gralora_hybrid", config(["k_proj", "down_proj", "lm_head"], gralora_k=4, hybrid_r=3), "sixteen blocks, a plain LoRA beside, the head",
         start=start, not_written=HEAD),
    case("gralora_neox", config(NEOX_ALL, r=6), "fused query_key_value", base="base_neox", start=start),
]

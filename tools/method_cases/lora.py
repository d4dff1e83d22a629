"""LoRA (Hu et al. 2021), on two families."""

from peft import LoraConfig

from .common import LLAMA_ALL, NEOX_ALL, case


def start(name, data, r):
    return (0.8 * r / data.shape[1] ** 0.5) if "lora_A" in name else 0.25 * r if "lora_B" in name else None


def config(targets, **more):
    return lambda: LoraConfig(**{**dict(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM"), **more})


CASES = [
    case("lora", config(LLAMA_ALL), "all linear layers", start=start),
    case("lora_neox", config(NEOX_ALL), "fused query_key_value, biases, parallel residual", base="base_neox", start=start),
    case("lora_patterns", config(["q_proj", "down_proj"], rank_pattern={"down_proj": 2}, alpha_pattern={"q_proj": 3}, use_rslora=True,
                                 layers_to_transform=[1], modules_to_save=["lm_head"], bias="lora_only"),
         "patterns, layers_to_transform, modules_to_save, biases", start=start),
    case("lora_tied", lambda: LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6, target_modules=["q_proj", "down_proj"],
                                         modules_to_save=["model.embed_tokens"], ensure_weight_tying=True),
         "embedding and head trained whole as one", base="base_tied", start=start, lr=0.003,
         not_written={"lm_head.weight": "the embedding once more"}),
]

"""DoRA (Liu et al. 2024): LoRA with trained row lengths, on linear layers and on the embedding."""

from peft import LoraConfig

from . import common
from .common import LLAMA_ALL, NEOX_ALL, case


def start(name, data, r):
    if "magnitude" in name:
        return data * (1 + 0.3 * r)
    if "embedding_A" in name:
        return 0.3 * r
    return (0.8 * r / data.shape[1] ** 0.5) if "lora_A" in name else 0.25 * r if "lora_B" in name else None


def config(targets, **more):
    return lambda: LoraConfig(**{**dict(task_type="CAUSAL_LM", r=4, lora_alpha=6, target_modules=targets, use_dora=True), **more})


CASES = [
    case("dora", config(LLAMA_ALL), "DoRA on every linear layer, with the base's biases", start=start, method="lora"),
    case("dora_neox", config(NEOX_ALL), "DoRA on a fused projection", base="base_neox", start=start, method="lora"),
    case("dora_embedding", config(["embed_tokens", "v_proj"], use_rslora=True, rank_pattern={"v_proj": 2}),
         "DoRA on the embedding: one length per column of the table", start=start, method="lora", lr=0.003,
         not_written={"embed_tokens.base_layer.weight": "the frozen table itself"}),
    case("dora_bias", config(["q_proj", "down_proj"], bias="lora_only", modules_to_save=["lm_head"], layers_to_transform=[1],
                             alpha_pattern={"down_proj": 9}),
         "DoRA with trained biases, a module trained whole, one layer", start=start, method="lora"),
    case("dora_head", config(["lm_head", "q_proj"]), "DoRA on the head", start=start, method="lora", not_written=common.HEAD),
    case("dora_head_tied", config(["embed_tokens", "lm_head", "v_proj"]), "DoRA on a head and an embedding that share a matrix",
         base="base_tied", start=start, method="lora", lr=0.003, not_written=common.HEAD),
    case("dora_head_neox", config(["lm_head", "dense"], r=3), "DoRA on the head", base="base_neox", start=start, method="lora",
         not_written=common.HEAD),
]

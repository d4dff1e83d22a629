"""Single rows of the embedding: trainable_token_indices of LoRA, and TRAINABLE_TOKENS."""

from peft import LoraConfig, TrainableTokensConfig

from .common import case

IDS = [1, 7, 12, 20, 33, 2, 40, 51, 9]
TASK = dict(task_type="CAUSAL_LM")


CASES = [
    case("tokens", lambda: TrainableTokensConfig(token_indices=IDS, **TASK), "rows of the embedding", lr=0.05, optim=dict(max_grad_norm=0.25)),
    case("tokens_neox", lambda: TrainableTokensConfig(token_indices=IDS, target_modules=["embed_in"], **TASK),
         "rows of an embedding that is named", base="base_neox", lr=0.05, optim=dict(max_grad_norm=0.25)),
    case("lora_tokens", lambda: LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj"], trainable_token_indices=IDS, **TASK),
         "LoRA and rows of the embedding", method="lora", lr=0.02),
    case("lora_tokens_head", lambda: LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj"],
                                                trainable_token_indices={"embed_tokens": IDS, "lm_head": [5, 33, 2]}, **TASK),
         "LoRA, rows of the embedding and other rows of the head", method="lora", lr=0.02),
    case("tokens_tied", lambda: TrainableTokensConfig(token_indices=IDS, **TASK), "rows that embedding and head share",
         not_written={"lm_head.trainable_tokens_delta": "the embedding's rows a second time"},
         base="base_tied", lr=0.05, optim=dict(max_grad_norm=0.25)),
    case("lora_tokens_tied", lambda: LoraConfig(r=2, target_modules=["down_proj"], trainable_token_indices=IDS, **TASK),
         "LoRA and rows that embedding and head share", base="base_tied", method="lora", lr=0.02),
]

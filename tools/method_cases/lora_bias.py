"""LoRA with a bias on B (lora_bias)."""

from peft import LoraConfig

from .common import HEAD, case
from .lora import start

CASES = [
    case("lora_bias", lambda: LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6, target_modules=["q_proj", "v_proj", "k_proj"],
                                         lora_bias=True),
         "LoRA with a bias on B, on layers that have a bias to merge into", start=start, method="lora"),
    case("lora_bias_head", lambda: LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6, target_modules=["q_proj", "lm_head"],
                                              lora_bias=True),
         "a bias on B of the head", start=start, method="lora", not_written=HEAD, merges=False),
]

"""Prompt tuning (Lester et al. 2021) on two families."""

from peft import PromptTuningConfig

from .common import case
from .common_prompt import load


def start(name, data, r):
    return 0.8 * r


CASES = [
    case("prompt_tuning", lambda: PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5), "five rows before every sample", start=start,
         merges=False, load=load, lr=0.05, optim=dict(max_grad_norm=0.3)),
    case("prompt_tuning_neox", lambda: PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), "on a family with partial RoPE", base="base_neox",
         start=start, merges=False, load=load, lr=0.05, optim=dict(max_grad_norm=0.2)),
]

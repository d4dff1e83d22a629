"""Prefix tuning (Li & Liang 2021), the flat prefix, on two families: grouped heads, and as many key heads as heads."""

from peft import PrefixTuningConfig

from .common import case
from .common_prompt import load


def start(name, data, r):
    return 0.8 * r


CASES = [
    case("prefix_tuning", lambda: PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5), "five keys and values per layer, grouped heads",
         start=start, merges=False, load=load, lr=0.05, optim=dict(max_grad_norm=0.3)),
    case("prefix_tuning_neox", lambda: PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), "on a family with partial RoPE",
         base="base_neox", start=start, merges=False, load=load, lr=0.05, optim=dict(max_grad_norm=0.2)),
]

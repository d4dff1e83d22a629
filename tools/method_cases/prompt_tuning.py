"""Prompt tuning (Lester et al. 2021) on two families."""

from peft import PromptTuningConfig

from .common import case
from .common_prompt import load


def start(name, data, r):
    return 0.8 * r if "prompt" in name else None  # a head moves as usual


CASES = [
    case("prompt_tuning", lambda: PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5), "five rows before every sample", start=start,
         merges=False, load=load, lr=0.05, optim=dict(max_grad_norm=0.3)),
    case("prompt_tuning_neox", lambda: PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), "on a family with partial RoPE", base="base_neox",
         start=start, merges=False, load=load, lr=0.05, optim=dict(max_grad_norm=0.2)),
    case("prompt_tuning_t5", lambda: PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=4),
         "before every source; the file has as many rows again, which nobody reads", base="base_t5_tied", generates=True, start=start, merges=False, load=load, lr=0.05,
         optim=dict(max_grad_norm=0.1)),
    case("prompt_tuning_mt5", lambda: PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3, num_transformer_submodules=1),
         "rows of one stack", base="base_mt5", generates=True, start=start, merges=False, load=load, lr=0.05, optim=dict(max_grad_norm=0.3)),
    case("prompt_tuning_bert", lambda: PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4), "the first learned row tells a text's class",
         base="base_bert", pairs=True, start=start, merges=False, load=load, lr=0.05, optim=dict(max_grad_norm=0.3)),
    case("prompt_tuning_roberta", lambda: PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4), "under a head of two layers",
         base="base_roberta", start=start, merges=False, load=load, lr=0.02, optim=dict(max_grad_norm=0.3)),
]

"""Prefix tuning (Li & Liang 2021), the flat prefix, on two families: grouped heads, and as many key heads as heads."""

from peft import PrefixTuningConfig

from .common import case
from .common_prompt import load


def start(name, data, r):
    return 0.8 * r if "prompt" in name else None  # a head moves as usual


CASES = [
    case("prefix_tuning", lambda: PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5), "five keys and values per layer, grouped heads",
         start=start, merges=False, load=load, lr=0.05, optim=dict(max_grad_norm=0.3)),
    case("prefix_tuning_neox", lambda: PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), "on a family with partial RoPE",
         base="base_neox", start=start, merges=False, load=load, lr=0.05, optim=dict(max_grad_norm=0.2)),
    case("prefix_tuning_t5", lambda: PrefixTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=4), "before the decoder's rows, with biases of distances",
         base="base_t5_tied", generates=True, start=start, merges=False, load=load, lr=0.05, optim=dict(max_grad_norm=0.05)),
    case("prefix_tuning_mt5", lambda: PrefixTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3, token_dim=24, num_attention_heads=3),
         "keys as wide as the heads, which the model is not (peft has to be told), and fewer layers than the tensor has", base="base_mt5", generates=True, start=start,
         merges=False, load=load, lr=0.05, optim=dict(max_grad_norm=0.3)),
    case("prefix_tuning_bert", lambda: PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4), "where rows see both ways", base="base_bert", pairs=True,
         start=start, merges=False, load=load, lr=0.05, optim=dict(max_grad_norm=0.3)),
    case("prefix_tuning_xlmr", lambda: PrefixTuningConfig(task_type="TOKEN_CLS", num_virtual_tokens=4), "a class per token",
         base="base_xlmr", start=start, merges=False, load=load, lr=0.05, optim=dict(max_grad_norm=0.3)),
]

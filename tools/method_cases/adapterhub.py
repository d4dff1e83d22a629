"""LoRA, (IA)3 and unions of methods as AdapterHub's `adapters` 1.3 has them, in its environment (see bottleneck.py)."""

import re

from . import bottleneck
from .bottleneck import adapters, groups

if adapters is not None:
    from adapters import ConfigUnion, IA3Config, LoRAConfig, MAMConfig, ParBnConfig, PrefixTuningConfig, SeqBnConfig


def start(name, data, r):
    if "lora_" in name and data.shape[-1] == 1:
        return 1 + 0.3 * r  # (IA)3, or a rank of one
    if name.endswith("wte.weight"):
        return r
    if name.endswith("bias"):
        return 0.2 * r
    if "lora_" in name:
        return r / data.shape[-1] ** 0.5
    return bottleneck.start(name, data, r)


def randomize(c, model, gen):
    import torch

    for n, p in sorted(model.named_parameters()):
        if p.requires_grad:
            p.data = start(n, p.data, torch.randn(p.shape, generator=gen))


def case(name, config, what, **more):
    return bottleneck.case(name, config, what, **{**dict(randomize=randomize, merges=True), **more})


CASES = [] if adapters is None else [
    case("hub_lora", lambda: LoRAConfig(r=4, alpha=6, attn_matrices=["q", "k", "v"], intermediate_lora=True, output_lora=True, leave_out=[1]),
         "all of its places"),
    case("hub_lora_gated", lambda: LoRAConfig(r=4, alpha=2, use_gating=True, intermediate_lora=True), "a gate in place of the scale", merges=False),
    case("hub_lora_gpt2", lambda: LoRAConfig(r=3, alpha=6, output_lora=True), "a fused projection, two of three", base="base_gpt2"),
    case("hub_lora_gated_gpt2", lambda: LoRAConfig(r=3, alpha=6, use_gating=True, attn_matrices=["q", "k", "v"]), "a gate for each part", base="base_gpt2",
         merges=False),
    case("hub_lora_bert", lambda: LoRAConfig(r=4, alpha=8, intermediate_lora=True, output_lora=True), "with a head", base="base_bert"),
    case("hub_ia3", lambda: IA3Config(), "k, v and the MLP"),
    case("hub_ia3_gated", lambda: IA3Config(use_gating=True, output_lora=True), "gates", merges=False),
    case("hub_prefix", lambda: PrefixTuningConfig(prefix_length=4, bottleneck_size=6), "beside the positions, grouped heads", merges=False),
    case("hub_prefix_gpt2", lambda: PrefixTuningConfig(prefix_length=3, bottleneck_size=5, non_linearity="relu"), "learned positions", base="base_gpt2",
         merges=False),
    case("hub_mam", lambda: MAMConfig(PrefixTuningConfig(prefix_length=3, bottleneck_size=6), ParBnConfig(reduction_factor=8)), "Mix-and-Match",
         merges=False),
    case("hub_union", lambda: ConfigUnion(LoRAConfig(r=3, use_gating=True), SeqBnConfig(reduction_factor=8, use_gating=True)),
         "two with gates: UniPELT without its prefixes", base="base_gpt2", merges=False),
    case("hub_ia3_gpt2", lambda: IA3Config(), "a fused projection", base="base_gpt2"),
]

"""LoHa (Hyeon-Woo et al. 2021; LyCORIS)."""

from peft import LoHaConfig

from .common import HEAD, LLAMA_ALL, NEOX_ALL, case
from .common_masks import masks, zero_gradients


def config(targets, **more):
    return lambda: LoHaConfig(**{**dict(r=3, alpha=6, target_modules=targets, init_weights=False, task_type="CAUSAL_LM"), **more})


def start(name, data, r):
    return 0.5 * r if "_a" in name[-12:] else 1.5 * r / data.shape[1] ** 0.5 if "hada" in name else None


CASES = [
    case("loha", config(LLAMA_ALL), "all linear layers", start=start),
    case("loha_wide", config(["v_proj", "down_proj"], r=6), "a rank whose square is more than the layer has", start=start),
    case("loha_patterns", config(["q_proj", "up_proj"], rank_pattern={"up_proj": 2}, alpha_pattern={"q_proj": 2},
                                 exclude_modules=["layers.0.mlp.up_proj"], modules_to_save=["lm_head"]),
         "patterns, exclude_modules, modules_to_save", start=start),
    case("loha_neox", config(NEOX_ALL, r=2), "fused query_key_value", base="base_neox", start=start),
    case("loha_drop", config(LLAMA_ALL, rank_dropout=0.4, module_dropout=0.3), "outputs and modules left out", start=start,
         before_step=masks(), extra_loss=zero_gradients),
    case("loha_head", config(["lm_head", "v_proj"]), "the head", start=start, not_written=HEAD),
]

"""LoKr (LyCORIS): whole factors, products, both of them, sizes by decompose_factor."""

from peft import LoKrConfig

from .common import HEAD, LLAMA_ALL, NEOX_ALL, case
from .common_masks import masks, zero_gradients


def config(targets, **more):
    return lambda: LoKrConfig(**{**dict(r=2, alpha=4, target_modules=targets, init_weights=False, task_type="CAUSAL_LM"), **more})


def start(name, data, r):
    return 0.5 * r if "lokr_w1" in name else 0.3 * r if "lokr" in name else None


CASES = [
    case("lokr", config(LLAMA_ALL), "second factor a product", start=start),
    case("lokr_both", config(["q_proj", "v_proj", "down_proj"], r=1, decompose_both=True, alpha=2), "both factors products", start=start),
    case("lokr_factor", config(["k_proj", "up_proj"], r=16, decompose_factor=2, rank_pattern={"up_proj": 3}), "decompose_factor, a whole second factor",
         start=start),
    case("lokr_neox", config(NEOX_ALL), "fused query_key_value", base="base_neox", start=start),
    case("lokr_drop", config(LLAMA_ALL, rank_dropout=0.4), "outputs left out, without a scale", start=start,
         before_step=masks()),
    case("lokr_drop_neox", config(NEOX_ALL, rank_dropout=0.3, module_dropout=0.3, rank_dropout_scale=True),
         "outputs and modules left out, scaled", base="base_neox", start=start, before_step=masks(), extra_loss=zero_gradients),
    case("lokr_head", config(["lm_head", "dense"]), "the head", base="base_neox", start=start, not_written=HEAD),
]

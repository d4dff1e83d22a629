"""OFT (Qiu et al. 2023, 2025): polynomial and exact Cayley transform, blocks by number, shared, coft."""

from peft import OFTConfig

from .common import HEAD, LLAMA_ALL, NEOX_ALL, case
from .common_masks import masks


def config(targets, **more):
    return lambda: OFTConfig(**{**dict(oft_block_size=8, target_modules=targets, init_weights=False, task_type="CAUSAL_LM"), **more})


def start(name, data, r):
    return 0.15 * r if "oft_R" in name else None


def use_dropout(layer):
    """peft 0.21 makes a dropout layer for module_dropout and does not call it: put where its documentation has it."""
    module, drop = layer.oft_R["default"], layer.oft_dropout["default"]
    cayley = module._cayley_batch
    module._cayley_batch = lambda *args: drop(cayley(*args))


CASES = [
    case("oft", config(LLAMA_ALL), "five terms of the series", start=start),
    case("oft_cayley", config(["q_proj", "down_proj"], use_cayley_neumann=False, oft_block_size=16), "the inverse", start=start),
    case("oft_r", config(["k_proj", "up_proj"], r=5, oft_block_size=0, num_cayley_neumann_terms=3), "r, which does not divide; three terms",
         start=start),
    case("oft_share", config(["v_proj", "gate_proj"], block_share=True, use_cayley_neumann=False), "block_share", start=start),
    case("coft", config(["q_proj", "o_proj", "down_proj"], coft=True, eps=0.5), "coft: blocks scaled down to eps", start=start),
    case("oft_neox", config(NEOX_ALL), "fused query_key_value", base="base_neox", start=start),
    case("oft_drop", config(LLAMA_ALL, module_dropout=0.5), "blocks left out", start=start, before_step=masks(patch=use_dropout)),
    case("oft_drop_neox", config(NEOX_ALL, module_dropout=0.3, oft_block_size=4, use_cayley_neumann=False), "blocks left out",
         base="base_neox", start=start, before_step=masks(patch=use_dropout)),
    case("oft_embedding", config(["embed_tokens", "v_proj", "lm_head"]), "the embedding and the head", start=start, not_written=HEAD),
    case("oft_embedding_tied", config(["embed_tokens", "up_proj"], r=4, oft_block_size=0, coft=True, eps=0.5), "an embedding that the head shares",
         base="base_tied", start=start, lr=0.003, not_written=HEAD),
    case("oft_embedding_neox", config(["embed_in", "dense"], block_share=True, use_cayley_neumann=False), "one block for all of an embedding",
         base="base_neox", start=start, not_written=HEAD),
]

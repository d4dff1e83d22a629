"""BOFT (Liu et al. 2023): one factor, two and three of them with their permutations, blocks by number.

peft computes more than one factor with its CUDA extension only; its one function, blocks on a diagonal, is played by torch."""

import torch
from peft import BOFTConfig
from peft.tuners.boft import layer

from .common import HEAD, LLAMA_ALL, NEOX_ALL, case
from .common_masks import masks


class FastBlockDiag:
    @staticmethod
    def apply(x):
        return torch.stack([torch.block_diag(*torch.unbind(f)) for f in x])


layer.get_fbd_cuda = lambda: True
layer.FastBlockDiag = FastBlockDiag


def config(targets, **more):
    return lambda: BOFTConfig(**{**dict(boft_block_size=4, target_modules=targets, init_weights=False, task_type="CAUSAL_LM"), **more})


def start(name, data, r):
    return 0.3 * r if "boft_R" in name else 1 + 0.2 * r if "boft_s" in name else None


CASES = [
    case("boft", config(LLAMA_ALL), "one factor", start=start),
    case("boft_two", config(["q_proj", "down_proj"], boft_n_butterfly_factor=2), "two factors", start=start),
    case("boft_num", config(["up_proj", "o_proj"], boft_block_size=0, boft_block_num=8, boft_n_butterfly_factor=3),
         "three factors, blocks by number", start=start),
    case("boft_neox", config(NEOX_ALL), "factors about a bias", base="base_neox", start=start),
    case("boft_drop", config(["q_proj", "up_proj", "down_proj"], boft_n_butterfly_factor=2, boft_dropout=0.5),
         "blocks of one of two factors left out", start=start, before_step=masks(lambda layer: layer.boft_R["default"].shape[1])),
    case("boft_drop_neox", config(NEOX_ALL, boft_dropout=0.3), "blocks left out", base="base_neox", start=start,
         before_step=masks(lambda layer: layer.boft_R["default"].shape[1])),
    case("boft_head", config(["lm_head", "v_proj"]), "the head", start=start, not_written=HEAD),
]

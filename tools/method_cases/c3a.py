"""C3A (Chen et al. 2024): circulant blocks, sizes by pattern, the head.

The backward pass of peft (0.21) gives the input of a layer another gradient than that of its forward pass (it differs from the one of
peft's own get_delta_weight); the same product is played by torch, which has the right one."""

import torch
from peft import C3AConfig
from peft.tuners.c3a import layer
from peft.tuners.c3a.utils import get_circulant_fast

from .common import HEAD, LLAMA_ALL, NEOX_ALL, case


class BlockCircularConvolution:
    @staticmethod
    def apply(x, w):
        return torch.nn.functional.linear(x, get_circulant_fast(w))


layer.BlockCircularConvolution = BlockCircularConvolution


def config(targets, **more):
    return lambda: C3AConfig(**{**dict(block_size=8, target_modules=targets, init_weights="gaussian", task_type="CAUSAL_LM"), **more})


def start(name, data, r):
    return 2 * r if "c3a_kernel" in name else None


CASES = [
    case("c3a", config(LLAMA_ALL), "all linear layers", start=start, lr=0.2, optim=dict(max_grad_norm=0.09)),
    case("c3a_pattern", config(["q_proj", "down_proj", "lm_head"], block_size_pattern={"q_proj": 32, "mlp.down_proj": 4}),
         "block_size_pattern, the head", start=start, lr=0.2, optim=dict(max_grad_norm=0.09), not_written=HEAD),
    case("c3a_neox", config(NEOX_ALL, block_size=16), "fused query_key_value", base="base_neox", start=start, lr=0.2, optim=dict(max_grad_norm=0.09)),
]

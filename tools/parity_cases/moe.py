"""Mixtral, Qwen2-MoE, Qwen3-MoE: models/mixtral, models/qwen_moe.

transformers 5 holds the experts of a layer in two tensors; files, and adapters that peft has made with transformers 4, have one linear
layer per expert. Here the loaded model is given such layers again, so that peft trains LoRA on each of them.
"""

from functools import partial

import torch

from parity_cases import common
from parity_cases.common import BASE, off_attribute, off_config, off_forward, rope

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
NAMES = dict(mixtral=("w1", "w3", "w2"), qwen2_moe=("gate_proj", "up_proj", "down_proj"), qwen3_moe=("gate_proj", "up_proj", "down_proj"))
BLOCK = dict(mixtral="block_sparse_moe", qwen2_moe="mlp", qwen3_moe="mlp")


class Expert(torch.nn.Module):
    def __init__(self, names, gate_up, down, act):
        super().__init__()
        self.names, self.act = names, act
        for name, w in zip(names, [*gate_up.chunk(2), down]):
            linear = torch.nn.Linear(w.shape[1], w.shape[0], bias=False)
            linear.weight = torch.nn.Parameter(w.detach().clone())
            setattr(self, name, linear)

    def forward(self, x):
        gate, up, down = (getattr(self, n) for n in self.names)
        return down(self.act(gate(x)) * up(x))


class Experts(torch.nn.ModuleList):
    """In place of transformers' module of the same signature. Experts without rows run too: their gradients are zeros."""

    def forward(self, x, index, weights):
        y = torch.zeros_like(x)
        for e, expert in enumerate(self):
            row, k = torch.where(index == e)
            y.index_add_(0, row, expert(x[row]) * weights[row, k, None])
        return y


def apart(model):
    kind = model.config.model_type
    for layer in model.model.layers:
        block = layer.mlp
        if not hasattr(block, "experts"):
            continue
        old = block.experts
        block.experts = Experts(Expert(NAMES[kind], gu, d, old.act_fn) for gu, d in zip(old.gate_up_proj, old.down_proj))
        if BLOCK[kind] != "mlp":
            del layer.mlp
            setattr(layer, BLOCK[kind], block)
            layer.__dict__["mlp"] = block  # found by forward, but no module's name
    model.config.model_type = kind + "_apart"  # or peft would look for the fused experts


def store(state, kind):
    """The tensors of a file: one per projection of an expert."""
    out = {}
    for n, p in state.items():
        n = n.replace(".mlp.", f".{BLOCK[kind]}.")
        if n.endswith("experts.gate_up_proj"):
            for e, gu in enumerate(p):
                for name, w in zip(NAMES[kind][:2], gu.chunk(2)):
                    out[f"{n[:-13]}.{e}.{name}.weight"] = w.contiguous()
        elif n.endswith("experts.down_proj"):
            for e, w in enumerate(p):
                out[f"{n[:-10]}.{e}.{NAMES[kind][2]}.weight"] = w.contiguous()
        else:
            out[n] = p
    return out


def scale(name, p, r):
    if "experts" in name:
        return 1.6 * r / p.shape[-1] ** 0.5
    if name.endswith("mlp.gate.weight"):
        return 1.5 * r / p.shape[-1] ** 0.5
    return common.scale(name, p, r)


MIXTRAL = dict(BASE, num_local_experts=4, num_experts_per_tok=2, intermediate_size=24)
QWEN2 = dict(BASE, num_experts=6, num_experts_per_tok=2, moe_intermediate_size=16, shared_expert_intermediate_size=20)
QWEN3 = dict(BASE, num_experts=8, num_experts_per_tok=3, moe_intermediate_size=16, head_dim=16, num_hidden_layers=3)


def case(name, arch, what, off, **kw):
    base = dict(mixtral=MIXTRAL, qwen2_moe=QWEN2, qwen3_moe=QWEN3)[arch]
    kw.setdefault("targets", ATTENTION + list(NAMES[arch]))
    return common.case(name, arch, what, off, base=base, scale=scale, prepare=apart, store=partial(store, kind=arch), rope_parameters=rope(),
                       **kw)


def off_shared():
    return off_forward(r"mlp\.shared_expert$", lambda m: torch.zeros_like)


CASES = [
    case("mixtral", "mixtral", "two of four experts; LoRA on them", off_config(num_experts_per_tok=1)),
    case("mixtral_window", "mixtral", "a window in every layer; LoRA on attention", off_config(sliding_window=None), sliding_window=6,
         targets=["q_proj", "v_proj"], tie_word_embeddings=True),
    case("mixtral_aux", "mixtral", "the routers' own loss", dict(off_config(router_aux_loss_coef=0.0), loss_only=True),
         output_router_logits=True, router_aux_loss_coef=0.3),
    case("mixtral_full", "mixtral", "every weight trained, the router too", off_config(num_experts_per_tok=1), full=True),
    case("qwen2_moe", "qwen2_moe", "an expert for every row, behind a gate", off_shared()),
    case("qwen2_moe_sparse", "qwen2_moe", "weights normalized; a layer without experts by decoder_sparse_step", off_config(norm_topk_prob=False),
         norm_topk_prob=True, decoder_sparse_step=2),
    case("qwen2_moe_full", "qwen2_moe", "every weight trained", off_shared(), full=True),
    case("qwen2_moe_aux", "qwen2_moe", "the routers' own loss, routers trained", dict(off_config(router_aux_loss_coef=0.0), loss_only=True),
         full=True, output_router_logits=True, router_aux_loss_coef=0.3, decoder_sparse_step=1),
    case("qwen3_moe", "qwen3_moe", "three of eight experts; a layer without by mlp_only_layers", off_attribute(top_k=1), mlp_only_layers=[1],
         norm_topk_prob=True, attention_bias=True),
    case("qwen3_moe_full", "qwen3_moe", "every weight trained, weights as they are", off_attribute(norm_topk_prob=True), full=True),
]

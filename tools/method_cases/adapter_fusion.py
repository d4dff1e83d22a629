"""AdapterFusion against AdapterHub's `adapters` 1.3, in its environment (see bottleneck.py). config gives the adapters' configurations
and the fusion's."""

import json
import os
import re

import torch
from safetensors.torch import save_file

from .bottleneck import has_head
from .common import case as common_case

try:
    import adapters
    from adapters import AdapterPlusConfig, CompacterPlusPlusConfig, DoubleSeqBnConfig, DynamicAdapterFusionConfig, Fuse, ParBnConfig, SeqBnConfig
    from adapters import StaticAdapterFusionConfig
    from adapters.loading import AdapterFusionLoader, AdapterLoader
except ImportError:
    adapters = None


def names(c):
    return ["adapter_" + "abcdefghijkl"[i] for i in range(len(c["config"]()) - 1)]


def train(c, model):
    model.train_adapter_fusion(Fuse(*names(c)))
    return model


def build(c, base):
    adapters.init(base)
    *parts, fusion = c["config"]()
    for name, config in zip(names(c), parts):
        base.add_adapter(name, config=config)
    base.add_adapter_fusion(names(c), fusion)
    return train(c, base)


def load(c, base, folder):
    adapters.init(base)
    for name in names(c):
        base.load_adapter(os.path.join(folder, name), use_safetensors=True, with_head=False)
    base.load_adapter_fusion(folder, use_safetensors=True, set_active=True, with_head=has_head(base))
    return train(c, base)


def write_head(model, folder, base):
    model.save_head(folder)
    pickle = os.path.join(folder, "pytorch_model_head.bin")
    save_file({k: v.clone() for k, v in torch.load(pickle, weights_only=True).items()}, os.path.join(folder, "model_head.safetensors"))
    os.remove(pickle)
    path = os.path.join(folder, "head_config.json")
    json.dump({**json.load(open(path)), "model_name": base}, open(path, "w"), indent=2, sort_keys=True)


def write(loader, model, folder, name, file, pickle, base):
    os.makedirs(folder, exist_ok=True)
    loader.save(folder, name)
    os.remove(os.path.join(folder, pickle))
    state = loader.weights_helper.state_dict(loader.filter_func(name))
    save_file({k: v.contiguous().clone() for k, v in state.items()}, os.path.join(folder, file))
    for f in os.listdir(folder):
        if f.endswith("config.json"):
            path = os.path.join(folder, f)
            info = json.load(open(path))
            info["model_name"] = base
            json.dump(info, open(path, "w"), indent=2, sort_keys=True)


def save(c):
    def all_of(model, folder):
        write(AdapterFusionLoader(model), model, folder, ",".join(names(c)), "model_adapter_fusion.safetensors",
              "pytorch_model_adapter_fusion.bin", c["base"])
        if has_head(model):
            write_head(model, folder, c["base"])
        for name in names(c):
            write(AdapterLoader(model), model, os.path.join(folder, name), name, "adapter.safetensors", "pytorch_adapter.bin", c["base"])

    return all_of


def regularization(model):
    loss = model.base_model.get_fusion_regularization_loss()
    return 0 if loss is None else loss


def groups(model, optim):
    return [
        dict(params=[p for n, p in model.named_parameters() if p.requires_grad and "bias" not in n], weight_decay=optim["weight_decay"]),
        dict(params=[p for n, p in model.named_parameters() if p.requires_grad and "bias" in n], weight_decay=0.0),
    ]


def start(name, data, r):
    if "adapter_fusion_layer" not in name and not re.search(r"adapters\.adapter_|shared_parameters", name):
        return None
    if re.search(r"phm_rule|W_left|W_right|shared_parameters", name):
        return 0.7 * r
    if name.endswith("bias") or name.endswith(".b"):
        return 0.2 * r
    if "scaling" in name:
        return data + 0.3 * r
    if ".value." in name:
        return data + 0.3 * r / data.shape[-1] ** 0.5
    return (0.5 if "fusion" in name else 0.8) * r / data.shape[-1] ** 0.5


def randomize(c, model, gen):
    for n, p in sorted(model.named_parameters()):
        new = start(n, p.data, torch.randn(p.shape, generator=gen))
        if new is not None:
            p.data = new


def case(name, config, what, **more):
    more = {**dict(randomize=randomize, merges=False, groups=groups, build=build, load=load, lr=0.01, defaults=lambda: {},
                   extra_loss=regularization), **more}
    c = common_case(name, config, what, **more)
    c["save"] = save(c)
    c["extra"] = dict(adapters=adapters.__version__, no_gradient={".key.bias": "adds the same to all scores of a row"})
    return c


CASES = [] if adapters is None else [
    case("fusion", lambda: (SeqBnConfig(reduction_factor=8), SeqBnConfig(reduction_factor=4, non_linearity="gelu"), DynamicAdapterFusionConfig()),
         "dynamic, two adapters of different width"),
    case("fusion_static", lambda: (DoubleSeqBnConfig(reduction_factor=8), DoubleSeqBnConfig(reduction_factor=8), DoubleSeqBnConfig(reduction_factor=4),
                                   StaticAdapterFusionConfig()), "static, three, behind attention too", base="base_gpt2"),
    case("fusion_residual", lambda: (SeqBnConfig(reduction_factor=8, ln_after=True), SeqBnConfig(reduction_factor=8, residual_before_ln=False),
                                     DynamicAdapterFusionConfig(residual_before=True, value_before_softmax=False, query_before_ln=True, query=False)),
         "residual before, value behind, no query matrix"),
    case("fusion_parallel", lambda: (ParBnConfig(reduction_factor=8), ParBnConfig(reduction_factor=4, scaling="learned"), DynamicAdapterFusionConfig()),
         "parallel adapters"),
    case("fusion_bert", lambda: (SeqBnConfig(reduction_factor=8), SeqBnConfig(reduction_factor=4), DynamicAdapterFusionConfig(query_before_ln=True)),
         "a head for classes beside it", base="base_bert"),
]

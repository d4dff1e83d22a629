#!/usr/bin/env python3
"""Makes tests/golden/lora_kin/: LoRA with other first weights and other ways to be trained, for tests/golden/test_lora_kin.c.

    python tools/make_lora_kin_fixtures.py [NAME ...] [--out DIR]

    <case>/start/   where the case does not begin by itself: the adapter as peft saves it
    <case>/end/     the adapter after ten steps as plain LoRA that fits the unchanged base
    <case>/case.json, expected.safetensors   as tools/make_method_fixtures.py has them; "section" is what peft.lora would say

Bases are those of tests/golden/methods. Initial factors that come from the base's weight are peft's own here and ours in the
test: they may differ in sign, which AdamW does not see, so losses and logits are compared and not factors."""

import argparse
import os
import shutil
import sys

import make_method_fixtures as m  # noqa: E402 (runs itself again with PYTHONHASHSEED=0)
import peft.optimizers.lorafa as lorafa
import torch
import transformers
from method_cases import common
from peft import LoraConfig, PeftModel, get_peft_model
from peft.optimizers import create_lorafa_optimizer, create_loraplus_optimizer
from safetensors.torch import save_file

ALL = common.LLAMA_ALL
lorafa.is_bf16_available = lambda: False  # else its products are in bf16, wherever they run


def loraplus(model, optim):
    opt = create_loraplus_optimizer(model, torch.optim.AdamW, lr=optim["lr"], loraplus_lr_ratio=6.0, loraplus_lr_embedding=0.004,
                                    loraplus_weight_decay=optim["weight_decay"], betas=tuple(optim["betas"]), eps=optim["eps"])
    return opt


def fa(model, optim):
    # its eps stands elsewhere than AdamW's, so it is nearly nothing here
    opt = create_lorafa_optimizer(model, r=4, lora_alpha=6, lr=optim["lr"], weight_decay=0.0)
    opt.param_groups[0]["eps"] = optim["eps"]
    return opt


def lora(**more):
    return {**dict(task_type="CAUSAL_LM", r=4, lora_alpha=6, target_modules=ALL), **more}


CASES = [
    dict(name="pissa", config=lora(init_lora_weights="pissa"), section=dict(init_lora_weights="pissa")),
    dict(name="pissa_niter", config=lora(init_lora_weights="pissa_niter_500", r=2, target_modules=["q_proj", "up_proj"]),
         section=dict(init_lora_weights="pissa_niter_500")),
    dict(name="olora", config=lora(init_lora_weights="olora"), section=dict(init_lora_weights="olora")),
    dict(name="pissa_patterns", config=lora(init_lora_weights="pissa", rank_pattern={"down_proj": 2}, alpha_pattern={"q_proj": 3},
                                            exclude_modules=["o_proj"]),
         section=dict(init_lora_weights="pissa")),
    dict(name="olora_neox", base="base_neox", config=lora(init_lora_weights="olora", target_modules=common.NEOX_ALL),
         section=dict(init_lora_weights="olora")),
    dict(name="pissa_head", config=lora(init_lora_weights="pissa", target_modules=["lm_head", "v_proj"]),
         section=dict(init_lora_weights="pissa")),
    dict(name="olora_head_neox", base="base_neox", config=lora(init_lora_weights="olora", target_modules=["lm_head", "dense"]),
         section=dict(init_lora_weights="olora")),
    dict(name="loraplus", config=lora(target_modules=["embed_tokens", "q_proj", "v_proj"], bias="lora_only"),
         section=dict(loraplus_lr_ratio=6.0, loraplus_lr_embedding=0.004), optimizer=loraplus, lr=0.003),
    dict(name="lorafa", config=lora(), section=dict(lora_fa=True), optimizer=fa, weight_decay=0.0, eps=1e-12),
]


def start(model, gen):
    for n, p in sorted(model.named_parameters()):
        if p.requires_grad:
            r = torch.randn(p.shape, generator=gen)
            small = "lora_A" in n
            p.data = p.data + (0.8 * r / p.shape[1] ** 0.5 if small else 0.25 * r)


def train(model, batches, optim, make):
    params = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    opt = make(model, optim) if make else torch.optim.AdamW(
        [dict(params=[p for n, p in params if not m.no_decay(n)], weight_decay=optim["weight_decay"]),
         dict(params=[p for n, p in params if m.no_decay(n)], weight_decay=0.0)],
        lr=optim["lr"], betas=tuple(optim["betas"]), eps=optim["eps"])
    log = []
    for samples in batches:
        opt.zero_grad()
        loss = m.step_loss(model, samples)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_([p for _, p in params if p.grad is not None and p.requires_grad],
                                              optim["max_grad_norm"])
        log.append(dict(loss=float(loss.detach()), grad_norm=float(norm), lr=optim["lr"]))
        opt.step()
    return log


def make_case(c, out, methods):
    c = {**dict(base="base_llama", optimizer=None, lr=0.01, weight_decay=0.1, eps=m.OPTIM["eps"]), **c}
    folder = os.path.join(out, c["name"])
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    gen = torch.Generator().manual_seed(sum(map(ord, c["name"])))
    torch.manual_seed(5)
    batches = m.make_batches(gen)
    base = lambda: m.load_base(c, methods)  # noqa: E731
    info_start = None
    on_base = "init_lora_weights" in c["section"]
    if on_base:
        model = get_peft_model(base(), LoraConfig(**c["config"]))
        initial = os.path.join(folder, "initial")
        model.peft_config["default"].init_lora_weights = True
        model.save_pretrained(initial)
        model.peft_config["default"].init_lora_weights = c["config"]["init_lora_weights"]
    else:
        model = get_peft_model(base(), LoraConfig(**c["config"]))
        model.peft_config["default"].base_model_name_or_path = c["base"]
        start(model, gen)
        info_start = os.path.join(folder, "start")
        model.save_pretrained(info_start)
        model = PeftModel.from_pretrained(base(), info_start, is_trainable=True)
    model.eval()
    optim = dict(m.OPTIM, lr=c["lr"], weight_decay=c["weight_decay"], eps=c["eps"])
    with torch.no_grad():
        untrained = [float(m.step_loss(model, b)) for b in batches]
    log = train(model, batches, optim, c["optimizer"])
    with torch.no_grad():
        last = torch.cat(m.forward(model, batches[0]))
    end = os.path.join(folder, "end")
    model.peft_config["default"].base_model_name_or_path = c["base"]
    if on_base:
        model.save_pretrained(end, path_initial_model_for_weight_conversion=initial)
        shutil.rmtree(initial)
    else:
        model.save_pretrained(end)
    for d in filter(None, (info_start, end)):
        os.path.exists(os.path.join(d, "README.md")) and os.remove(os.path.join(d, "README.md"))
    with torch.no_grad():
        again = torch.cat(m.forward(PeftModel.from_pretrained(base(), end).eval(), batches[0]))
        bare = torch.cat(m.forward(base().eval(), batches[0]))
    assert float((again - last).abs().max()) < 1e-3, (c["name"], "the converted adapter should be the same")
    moved = max(abs(s["loss"] - b) / b for s, b in zip(log, untrained))
    assert moved > 100 * m.TOL_LOSS and float((last - bare).abs().max()) > 100 * m.TOL_LOGITS, (c["name"], moved)
    info = dict(base=c["base"], architecture=base().config.architectures[0], section=c["section"], config={
        k: v for k, v in c["config"].items() if k not in ("task_type", "init_lora_weights")},
                transformers=transformers.__version__, peft=m.peft.__version__, torch=torch.__version__, optim=optim, steps=log,
                batches=batches)
    save_file({"logits.end": last.float().contiguous(), "logits.base": bare.float().contiguous()},
              os.path.join(folder, "expected.safetensors"))
    m.dump(folder, info)
    print(f"{c['name']:18} loss {log[0]['loss']:.4f} -> {log[-1]['loss']:.4f}, by training {moved:.3f}")


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("names", nargs="*")
    ap.add_argument("--out", default=os.path.join(m.ROOT, "tests/golden/lora_kin"))
    a = ap.parse_args()
    for c in CASES:
        if not a.names or c["name"] in a.names:
            make_case(c, a.out, os.path.join(m.ROOT, "tests/golden/methods"))


if __name__ == "__main__":
    main()

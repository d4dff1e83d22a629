"""AdaLoRA (Zhang et al. 2023): the budget falls within the ten steps, with a first and a last phase and without.

peft's forward adds the regularization to the loss when it is given labels; here it is added beside. update_and_allocate gets the
number of steps done, so that the step at which the budget is final comes."""

import torch
from peft import AdaLoraConfig

from .common import HEAD, LLAMA_ALL, NEOX_ALL, case


def regularization(model):
    total, n = 0, 0
    for name, p in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            cov = p @ p.T if "lora_A" in name else p.T @ p
            total, n = total + torch.norm(cov - torch.eye(*cov.size()), p="fro"), n + 1
    return model.peft_config["default"].orth_reg_weight * total / n


def after_step(model, step):
    model.base_model.update_and_allocate(step + 1)


def config(targets, **more):
    return lambda: AdaLoraConfig(**{**dict(init_r=4, target_r=2, total_step=10, lora_alpha=16, init_lora_weights=False, target_modules=targets,
                                           task_type="CAUSAL_LM"), **more})


def start(name, data, r):
    return 0.8 * r / data.shape[1] ** 0.5 if "lora_A" in name else 0.25 * r if "lora_B" in name else 1 + 0.3 * r if "lora_E" in name else None


def row(name, config, what, **more):
    return case(name, config, what, start=start, extra_loss=regularization, after_step=after_step,
                defaults=lambda: {**AdaLoraConfig(total_step=1).to_dict(), "peft_type": "ADALORA", "total_step": None}, **more)


CASES = [
    row("adalora", config(LLAMA_ALL, tinit=2, tfinal=3), "a first and a last phase, another step of the budget"),
    row("adalora_sparse", config(["q_proj", "down_proj"], tinit=1, tfinal=0, deltaT=3, target_r=1, beta1=0.7, orth_reg_weight=0.1),
        "deltaT, no last phase"),
    row("adalora_neox", config(NEOX_ALL, tinit=1, tfinal=2), "fused query_key_value", base="base_neox"),
    row("adalora_head", config(["lm_head", "v_proj"], tinit=2, tfinal=3), "the head", not_written=HEAD),
]

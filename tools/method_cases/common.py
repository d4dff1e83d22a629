"""What a row of tools/method_cases/ is: case(name, config, what, ...) and the usual ways to make, load and save its adapter."""

import torch
from peft import PeftModel, get_peft_model

LLAMA_ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
HEAD = {"lm_head.base_layer": "the frozen matrix itself", "embed_tokens.base_layer": "the frozen matrix itself",
        "embed_out.base_layer": "the frozen matrix itself", "embed_in.base_layer": "the frozen matrix itself"}
NEOX_ALL = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]


def build(c, base):
    model = get_peft_model(base, c["config"]())
    model.peft_config["default"].base_model_name_or_path = c["base"]
    return model


def load(c, base, folder):
    return PeftModel.from_pretrained(base, folder, is_trainable=True)


def save(model, folder):
    config = model.peft_config["default"]
    if isinstance(getattr(config, "modules_to_save", None), list):  # peft adds the heads' names each time that a model is made
        config.modules_to_save = sorted(set(config.modules_to_save))
    model.save_pretrained(folder)


def randomize(c, model, gen):
    """Away from the identity: what is trained is moved by `spread` times its own size, or by `spread` where it is zero."""
    for n, p in sorted(model.named_parameters()):
        if not p.requires_grad:
            continue
        r = torch.randn(p.shape, generator=gen)
        new = c["start"](n, p.data, r) if c["start"] else None
        size = float(p.data.square().mean().sqrt())
        p.data = new if new is not None else p.data + c["spread"] * (size if size > 0 else 1) * r


def case(name, config, what, base="base_llama", lr=0.01, spread=0.3, start=None, merges=True, method=None, groups=None,
         extra_loss=None, before_step=None, after_step=None, tolerance=None, not_written=None, optim=None, extra=None, build=build, load=load, save=save,
         randomize=randomize, defaults=None, pairs=False, generates=False):
    """config: a function without arguments that makes the peft configuration.
    start(parameter name, its data, normal numbers of its shape) -> first numbers, or None for the usual ones.
    merges: rows merged into the base give the same logits.
    groups(model, optim): parameter groups for AdamW. extra_loss(model): added before the backward pass. before_step and
    after_step(model, step).
    tolerance: dict(logits, loss, update, merged; why) of what cannot hold the usual ones.
    not_written: dict(expression for tensor names: why) of tensors in peft's file that ours does not need.
    build, load, save, randomize: other ways than peft's, for methods that are not peft's. extra: more members of case.json.
    pairs: a sample is two texts, told apart by their types. generates: what peft writes from the sources of the first batch is kept."""
    return dict(name=name, config=config, what=what, base=base, lr=lr, spread=spread, start=start, merges=merges, method=method,
                groups=groups, extra_loss=extra_loss, before_step=before_step, after_step=after_step, tolerance=tolerance, not_written=not_written,
                optim=optim or {}, extra=extra or {}, build=build, load=load, save=save, randomize=randomize,
                pairs=pairs, generates=generates, defaults=defaults or (lambda: plain(type(config())())))


def plain(config):
    """A peft configuration as its file has it."""
    out = config.to_dict()
    return {k: sorted(v) if isinstance(v, set) else getattr(v, "value", v) for k, v in out.items()}

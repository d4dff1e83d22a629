#!/usr/bin/env python3
"""Makes tests/golden/parity/: what transformers and peft compute, for the C tests to compare with.

    python tools/make_parity_fixtures.py [--only NAME ...] [--out DIR] [--data DIR]

NAME is a case or a family, that is a module of tools/parity_cases/ (all of its cases); `peft` and `real` are the folders below.
Needs torch, transformers 5, peft, safetensors. Never run by the build or the tests.

Each folder of tests/golden/parity/ is one case: a tiny random model (config.json, model.safetensors), a LoRA adapter whose B
is away from zero (adapter/), and

    case.json              batches, optimizer, per-step loss, gradient norm and learning rate, greedy continuations of the first
                           batch, figures of the switched-off feature
    expected.safetensors   logits of the first batch; grad.<name>: raw gradients of step 1; after.<name>: adapter after the steps

A step has several samples of different length; Hugging Face computes them as one padded batch, the C engine as rows without
padding, cut in two. loss = sum of token losses / supervised tokens of the step.

Every case names a feature. With the feature switched off (computed here, too) logits and loss must move by at least 100 times
their tolerance: a fixture that would pass without the feature is refused.

Folders real_* hold no weights, only losses: they belong to the pretrained models and data sets of ../shared/data (skipped
without it). tests/golden/peft/ holds adapters made by peft on two small bases, and the logits that they give.
"""

import argparse
import csv
import importlib
import json
import os
import re
import shutil
import sys
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
if os.environ.get("PYTHONHASHSEED") != "0":  # peft writes sets: the same bytes each time
    os.execve(sys.executable, [sys.executable] + sys.argv, dict(os.environ, PYTHONHASHSEED="0"))
warnings.filterwarnings("ignore")
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, get_linear_schedule_with_warmup
import peft
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict

from parity_cases.common import LLAMA_ALL, VOCAB, case, rope

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
STEPS = 20
TOL_LOGITS = 1e-4  # largest absolute difference
TOL_LOSS = 1e-4  # relative
OFF_FACTOR = 100

OPTIM = dict(betas=[0.9, 0.999], eps=1e-8, weight_decay=0.1, warmup_steps=3, steps=STEPS,
             schedule="linear")


# ---- models ------------------------------------------------------------------------------------------------------------


def randomize(model, gen, scale):
    """Weights large enough that every part of the model is heard in the logits."""
    for name, p in sorted(model.named_parameters()):
        r = torch.randn(p.shape, generator=gen)
        if name.endswith(".bias"):
            p.data = 0.5 * r
        elif re.search("norm|ln_", name):
            p.data = 1 + 0.3 * r
        else:
            p.data = scale(name, p, r)


def old_dialect(path):
    """config.json as transformers 4 wrote it."""
    cfg = json.load(open(path))
    r = cfg.pop("rope_parameters")
    cfg["rope_theta"] = r.pop("rope_theta")
    if "partial_rotary_factor" in r:
        cfg["partial_rotary_factor"] = r.pop("partial_rotary_factor")
    kind = r.pop("rope_type")
    cfg["rope_scaling"] = None if kind == "default" else dict(r, type=kind) if kind == "linear" else dict(r, rope_type=kind)
    cfg["torch_dtype"] = cfg.pop("dtype")
    json.dump(cfg, open(path, "w"), indent=2, sort_keys=True)


def auto_class(cfg):
    return AutoModelForSeq2SeqLM if cfg.is_encoder_decoder else AutoModelForCausalLM


def write_model(c, folder, gen):
    """Writes config.json and model.safetensors."""
    os.makedirs(folder)
    cfg = AutoConfig.for_model(c["arch"], **{**c["base"], **c["cfg"]})
    model = auto_class(cfg).from_config(cfg, attn_implementation="eager").float()
    if c["untied"]:  # transformers 5 has one matrix whatever the config says; files with two are read as two
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    randomize(model, gen, c["scale"])
    if not c["untied"]:
        model.tie_weights()
    model = model.to(getattr(torch, c["dtype"]))
    state = {n: p.detach().contiguous() for n, p in model.named_parameters()}
    if c["store"] is not None:
        state = c["store"](state)
    save_file(state, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    model.config.architectures = [type(model).__name__]
    model.config.dtype = c["dtype"]
    model.config.save_pretrained(folder)
    path = os.path.join(folder, "config.json")
    if c["dialect"] == 4:
        old_dialect(path)
    if c["edit"] is not None:
        cfg = json.load(open(path))
        c["edit"](cfg)
        json.dump(cfg, open(path, "w"), indent=2, sort_keys=True)


PREPARE = {}  # by case: what is done to a loaded model (parity_cases/moe.py)
attention = "eager"  # of the case at hand


def load(folder, config=None, adapter=None):
    kw = dict(dtype=torch.float32, attn_implementation=attention)
    if config is not None:
        kw["config"] = config
    model = auto_class(config or AutoConfig.from_pretrained(folder)).from_pretrained(folder, **kw)
    PREPARE.get(os.path.basename(folder), lambda m: None)(model)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter, is_trainable=True)
    return model


def task_type(model):
    return "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"


def add_lora(model, folder, lora, gen, name, targets=LLAMA_ALL):
    """A LoRA adapter with B away from zero, saved as peft saves it."""
    cfg = LoraConfig(**{**dict(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=targets, task_type=task_type(model)), **lora})
    m = get_peft_model(model, cfg)
    for n, p in sorted(m.named_parameters()):
        if not p.requires_grad:
            continue
        r = torch.randn(p.shape, generator=gen)
        if "lora_A" in n:
            p.data = 0.8 * r / p.shape[1] ** 0.5
        elif "lora_B" in n:
            p.data = 0.25 * r
        elif "lora_embedding_A" in n:
            p.data = 0.3 * r
        elif "lora_embedding_B" in n:
            p.data = 0.3 * r
        else:  # trained whole: away from the base, or loading it would show nothing
            p.data = p.data + 0.2 * r * p.data.abs().mean()
    m.peft_config["default"].base_model_name_or_path = name
    m.save_pretrained(folder)
    for f in os.listdir(folder):
        if f not in ("adapter_config.json", "adapter_model.safetensors"):
            os.remove(os.path.join(folder, f))


# ---- computing ---------------------------------------------------------------------------------------------------------


def reset_rope(model):
    """The dynamic type remembers the longest batch it saw; each sample is to have the class of its own length."""
    for m in model.modules():
        if hasattr(m, "original_inv_freq") and getattr(m, "rope_type", "") == "dynamic":
            m.inv_freq = m.original_inv_freq.clone()
            m.max_seq_len_cached = m.original_max_seq_len


def padded(rows):
    n = max(map(len, rows))
    ids, mask = torch.zeros(len(rows), n, dtype=torch.long), torch.zeros(len(rows), n, dtype=torch.long)
    for i, r in enumerate(rows):
        ids[i, : len(r)] = torch.tensor(r)
        mask[i, : len(r)] = 1
    return ids, mask


def forward(model, samples, alone, aux=None):
    """Logits of the real tokens of each sample, from one padded batch (or one sample at a time). aux: takes the routers' loss."""
    if alone:
        out = []
        for s in samples:
            reset_rope(model)
            out.append(model(input_ids=torch.tensor([s["ids"]])).logits[0])
        return out
    if "source" in samples[0]:
        source, source_mask = padded([s["source"] for s in samples])
        ids, mask = padded([s["ids"] for s in samples])
        logits = model(input_ids=source, attention_mask=source_mask, decoder_input_ids=ids, decoder_attention_mask=mask).logits
        return [logits[i, : len(s["ids"])] for i, s in enumerate(samples)]
    n = max(len(s["ids"]) for s in samples)
    ids = torch.zeros(len(samples), n, dtype=torch.long)
    mask = torch.zeros(len(samples), n, dtype=torch.long)
    for i, s in enumerate(samples):
        ids[i, : len(s["ids"])] = torch.tensor(s["ids"])
        mask[i, : len(s["ids"])] = 1
    out = model(input_ids=ids, attention_mask=mask)
    logits = out.logits
    if aux is not None and getattr(out, "aux_loss", None) is not None:
        aux.append(model.config.router_aux_loss_coef * out.aux_loss)
    return [logits[i, : len(s["ids"])] for i, s in enumerate(samples)]


def step_loss(model, samples, alone):
    total, count, aux = 0, 0, []
    for s, z in zip(samples, forward(model, samples, alone, aux)):
        first = s["prompt"]  # tokens ids[prompt:] are supervised
        target = torch.tensor(s["ids"][first:])
        total = total + F.cross_entropy(z[first - 1 : len(s["ids"]) - 1], target, reduction="sum")
        count += len(target)
    return total / count + sum(aux)


def greedy(model, samples, n_new=10, margin=2e-3):
    """Greedy continuations without a cache; ended where two tokens are nearly as likely."""
    out = []
    for s in samples:
        ids, new = list(s["ids"]), []
        if "source" in s:  # from the decoder's start
            ids = ids[:1]
        while len(new) < n_new:
            top = torch.topk(forward(model, [dict(s, ids=ids)], False)[0][-1], 2)
            if float(top.values[0] - top.values[1]) < margin:
                break
            new.append(int(top.indices[0]))
            ids.append(new[-1])
        out.append(new)
    return out


def make_batches(gen, lengths, per_step=4, steps=STEPS, seq2seq=False):
    def draw(lo, hi):
        return int(torch.randint(lo, hi + 1, (1,), generator=gen))

    out = []
    for _ in range(steps):
        samples = []
        for _ in range(per_step):
            n = draw(*lengths)
            if seq2seq:  # source </s> and start answer </s>
                source = torch.randint(3, VOCAB, (n - 1,), generator=gen).tolist() + [1]
                ids = [0] + torch.randint(3, VOCAB, (draw(1, max(2, n // 2)),), generator=gen).tolist() + [1]
                samples.append(dict(source=source, ids=ids, prompt=1))
                continue
            samples.append(dict(ids=[1] + torch.randint(3, VOCAB, (n - 2,), generator=gen).tolist() + [2], prompt=draw(1, n - 2)))
        out.append(samples)
    return out


def file_name(n):
    """The name that peft's file has for a parameter of the model."""
    n = n.replace(".modules_to_save.default", "").replace(".default", "")
    return n


def as_rows(model, tensors):
    """Gradients and ends of Conv1D weights as (out, in), which is how the C side sees them."""
    turned = {file_name(n) + ".weight" for n, m in model.named_modules() if isinstance(m, transformers.pytorch_utils.Conv1D)}
    return {n: t.T if n in turned else t for n, t in tensors.items()}


def no_decay(n, model):
    """As Trainer.get_decay_parameter_names: neither biases nor norms, by their class or by their name."""
    if isinstance(model.get_submodule(n.rpartition(".")[0]), torch.nn.LayerNorm):
        return True
    n = file_name(n)
    return re.search(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)", n.lower()) is not None


def clip_level(model, samples, alone):
    """A little below the first step's gradient norm: some steps are clipped, others are not."""
    params = [p for p in model.parameters() if p.requires_grad]
    grads = torch.autograd.grad(step_loss(model, samples, alone), params)
    return round(0.9 * float(torch.sqrt(sum((g.double() ** 2).sum() for g in grads))), 3)


def train(model, batches, alone, optim, loss_of=None):
    params = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups = [
        dict(params=[p for n, p in params if not no_decay(n, model)], weight_decay=optim["weight_decay"]),
        dict(params=[p for n, p in params if no_decay(n, model)], weight_decay=0.0),
    ]
    opt = torch.optim.AdamW(groups, lr=optim["lr"], betas=tuple(optim["betas"]), eps=optim["eps"])
    sched = get_linear_schedule_with_warmup(opt, optim["warmup_steps"], optim["steps"])
    log, first = [], None
    for samples in batches:
        opt.zero_grad()
        loss = step_loss(model, samples, alone) if loss_of is None else loss_of(model, samples)
        loss.backward()
        if first is None:
            first = {file_name(n): p.grad.clone() for n, p in params}
        norm = torch.nn.utils.clip_grad_norm_([p for _, p in params], optim["max_grad_norm"])
        log.append(dict(loss=float(loss.detach()), grad_norm=float(norm), lr=sched.get_last_lr()[0]))
        opt.step()
        sched.step()
    return log, first, {file_name(n): p.detach().clone() for n, p in params}


def off_figures(c, folder, adapter, batches, right):
    """How far logits and losses move without the feature."""
    off = c["off"]
    config = off["config"](AutoConfig.from_pretrained(folder)) if "config" in off else None
    model = load(folder, config, adapter)
    undo = off["patch"](model) if "patch" in off else None
    with torch.no_grad():
        z = torch.cat(forward(model, batches[0], c["alone"]))
        losses = [float(step_loss(model, b, c["alone"])) for b in batches]
    if undo:
        undo()
    d_logits = float((z - right["logits"]).abs().max())
    d_loss = max(abs(a - b) / b for a, b in zip(losses, right["losses"]))
    assert d_logits >= OFF_FACTOR * TOL_LOGITS or off.get("loss_only"), (c["name"], "logits", d_logits)
    assert d_loss >= OFF_FACTOR * TOL_LOSS, (c["name"], "loss", d_loss)
    return dict(max_abs_logit=d_logits, max_rel_loss=d_loss)


def save_case(folder, info, tensors):
    if tensors is not None:
        tensors = {k: v.detach().float().contiguous().clone() for k, v in tensors.items()}
        save_file(tensors, os.path.join(folder, "expected.safetensors"))
    text = json.dumps(info, indent=1)
    text = re.sub(r"\[\s+([-\d.,\s]+?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m.group(1)) + "]", text)
    open(os.path.join(folder, "case.json"), "w").write(text + "\n")


def trainable_line(model):
    if isinstance(model, PeftModel):
        t, a = model.get_nb_trainable_parameters()
    else:
        t = a = sum(p.numel() for p in model.parameters())
    return f"trainable params: {t:,d} || all params: {a:,d} || trainable%: {100 * t / a:.4f}"


def make_case(c, out):
    global attention
    attention = c["attention"]
    folder = os.path.join(out, c["name"])
    shutil.rmtree(folder, ignore_errors=True)
    gen = torch.Generator().manual_seed(sum(map(ord, c["name"])))
    write_model(c, folder, gen)
    PREPARE[c["name"]] = c["prepare"]
    batches = make_batches(gen, c["lengths"], steps=3 if c["logits_only"] else STEPS, seq2seq=c["seq2seq"])
    adapter = None
    if not c["full"]:
        adapter = os.path.join(folder, "adapter")
        add_lora(load(folder), adapter, c["lora"], gen, c["name"], c["targets"])
    model = load(folder, adapter=adapter)
    with torch.no_grad():
        logits = torch.cat(forward(model, batches[0], c["alone"]))
        continuations = None if c["alone"] else greedy(model, batches[0])
        right = dict(logits=logits, losses=[float(step_loss(model, b, c["alone"])) for b in batches])
    info = dict(what=c["what"], method="full" if c["full"] else "lora", transformers=transformers.__version__, peft=peft.__version__,
                torch=torch.__version__, trainable=trainable_line(model),
                off=off_figures(c, folder, adapter, batches, right))
    if continuations is not None:  # with the dynamic type a cache holds keys turned for shorter lengths
        assert sum(map(len, continuations)) >= 20, (c["name"], continuations)
        info["greedy"] = continuations
    tensors = dict(logits=logits)
    if c["logits_only"]:
        info["eval_losses"] = right["losses"]
    else:
        optim = dict({**OPTIM, **c["optim"]}, lr=0.002 if c["full"] else 0.01, max_grad_norm=clip_level(model, batches[0], c["alone"]))
        log, grads, after = train(model, batches, c["alone"], optim)
        assert any(s["grad_norm"] > optim["max_grad_norm"] for s in log), "clipping should matter"
        moved = max(abs(s["loss"] - b) / b for s, b in zip(log, right["losses"]))
        assert moved > OFF_FACTOR * TOL_LOSS, "training should matter"
        info.update(optim=optim, steps=log)
        tensors.update({"grad." + n: t for n, t in as_rows(model, grads).items()})
        tensors.update({"after." + n: t for n, t in as_rows(model, after).items()})
    if getattr(model.config, "output_router_logits", False):
        info["whole"] = True  # the routers' loss is one of a whole batch
    info["batches"] = batches
    save_case(folder, info, tensors)
    print(f"{c['name']:20} {info['trainable']}  off: logits {info['off']['max_abs_logit']:.3f} loss {info['off']['max_rel_loss']:.3f}")


# ---- the real models ---------------------------------------------------------------------------------------------------


def rows_of(data, kind):
    if kind == "gsm8k":
        for line in open(os.path.join(data, "datasets/gsm8k/train.jsonl")):
            yield json.loads(line)
    else:
        yield from csv.DictReader(open(os.path.join(data, "datasets/qa-epic/train.csv"), newline=""))


def real_batches(tok, data, kind, context, eos):
    """Rows as 'Q: {question}\\nA:' and ' {answer}', tokenized apart, ended by EOS; rows beyond the context are left out."""
    out, step = [], []
    for row in rows_of(data, kind):
        prompt = [1] + tok(f"Q: {row['question']}\nA:", add_special_tokens=False)["input_ids"]
        target = tok(f" {row['answer']}", add_special_tokens=False)["input_ids"] + [eos]
        if len(prompt) + len(target) > context:
            continue
        step.append(dict(ids=prompt + target, prompt=len(prompt)))
        if len(step) == 4:
            out.append(step)
            step = []
        if len(out) == STEPS:
            return out
    raise SystemExit(f"{kind}: too few rows")


def make_real(out, data, model_name, kind):
    name = f"real_{model_name}_{kind}".replace("-", "_")
    path = os.path.join(data, "models", model_name)
    folder = os.path.join(out, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    gen = torch.Generator().manual_seed(sum(map(ord, name)))
    tok = AutoTokenizer.from_pretrained(path)
    # context kept short: the fixture is to be small, the arithmetic is the same
    batches = real_batches(tok, data, kind, 256, 2)
    adapter = os.path.join(folder, "adapter")
    add_lora(load(path), adapter, dict(r=4, target_modules=["q_proj", "v_proj", "down_proj"]), gen, model_name)
    model = load(path, adapter=adapter)
    optim = dict(OPTIM, lr=2e-3, max_grad_norm=clip_level(model, batches[0], False))
    log, _, _ = train(model, batches, False, optim)
    assert all(s["grad_norm"] > 0 for s in log)
    ids = torch.tensor([t for b in batches for s in b for t in s["ids"]], dtype=torch.int32)
    info = dict(what=f"{model_name} on rows of {kind}", method="lora", model=model_name, transformers=transformers.__version__,
                peft=peft.__version__, torch=torch.__version__, trainable=trainable_line(model), optim=optim, steps=log,
                batches=[[dict(n=len(s["ids"]), prompt=s["prompt"]) for s in b] for b in batches])
    save_case(folder, info, None)
    save_file({"ids": ids.to(torch.int16)}, os.path.join(folder, "ids.safetensors"))
    print(f"{name}: loss {log[0]['loss']:.4f} -> {log[-1]['loss']:.4f}")


# ---- adapters made by peft ---------------------------------------------------------------------------------------------

PEFT_BASES = dict(
    untied=case("untied", "llama", "", None, attention_bias=True, rope_parameters=rope()),
    tied=case("tied", "qwen2", "", None, tie_word_embeddings=True, rope_parameters=rope()),
)
PEFT_ADAPTERS = [
    ("lora", "untied", dict(r=4, lora_alpha=12, target_modules=["q_proj", "v_proj"])),
    ("rslora", "untied", dict(r=4, lora_alpha=5, use_rslora=True, target_modules=LLAMA_ALL)),
    ("patterns", "untied", dict(r=4, lora_alpha=8, target_modules=LLAMA_ALL, rank_pattern={"q_proj": 2, r"layers\.1\.mlp\.\w+": 6, "v_proj": 3},
                                alpha_pattern={"model.layers.0.self_attn.v_proj": 5, "(o|down)_proj": 32})),
    ("regex", "untied", dict(r=2, target_modules=r".*\.layers\.[01]\.(self_attn\.[qv]|mlp\.up)_proj")),
    ("all_linear", "untied", dict(r=2, target_modules="all-linear")),
    ("exclude", "untied", dict(r=2, target_modules=LLAMA_ALL, exclude_modules=["layers.0.self_attn.q_proj", "down_proj"])),
    ("one_layer", "untied", dict(r=2, target_modules=["q_proj", "up_proj"], layers_to_transform=[1], layers_pattern="layers")),
    ("modules_to_save", "untied", dict(r=2, target_modules=["q_proj"], modules_to_save=["lm_head", "embed_tokens"])),
    ("saved_norms", "untied", dict(r=2, target_modules=["q_proj"], modules_to_save=["input_layernorm", "model.norm"])),
    ("saved_linear", "untied", dict(r=2, target_modules=["q_proj", "v_proj"], modules_to_save=["layers.1.self_attn.v_proj"])),
    ("bias_all", "untied", dict(r=2, target_modules=["q_proj"], bias="all")),
    ("bias_lora_only", "untied", dict(r=2, target_modules=["q_proj"], bias="lora_only")),
    ("embedding", "untied", dict(r=3, target_modules=["embed_tokens", "v_proj"])),
    ("head", "untied", dict(r=3, target_modules=["lm_head", "v_proj"])),
    ("embedding_tied", "tied", dict(r=3, target_modules=["embed_tokens", "v_proj"])),
    ("saved_embedding_tied", "tied", dict(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"])),
    ("bf16", "tied", dict(r=2, target_modules=["q_proj", "v_proj"])),
]


def make_peft(out):
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    gen = torch.Generator().manual_seed(7)
    for name, c in PEFT_BASES.items():
        write_model(c, os.path.join(out, "base_" + name), gen)
    samples = make_batches(gen, (6, 12), per_step=3, steps=1)[0]
    info = dict(transformers=transformers.__version__, peft=peft.__version__, samples=[s["ids"] for s in samples], cases=[])
    tensors = {}
    for name in PEFT_BASES:
        with torch.no_grad():
            tensors["base." + name] = torch.cat(forward(load(os.path.join(out, "base_" + name)), samples, False))
    for name, base, lora in PEFT_ADAPTERS:
        folder, adapter = os.path.join(out, "base_" + base), os.path.join(out, name)
        add_lora(load(folder), adapter, lora, gen, "base_" + base)
        if name == "bf16":
            path = os.path.join(adapter, "adapter_model.safetensors")
            save_file({k: v.bfloat16() for k, v in load_file(path).items()}, path, metadata={"format": "pt"})
        model = load(folder, adapter=adapter)
        with torch.no_grad():
            z = torch.cat(forward(model, samples, False))
        tensors[name] = z
        d = float((z - tensors["base." + base]).abs().max())
        assert d > OFF_FACTOR * TOL_LOGITS, (name, d)
        info["cases"].append(dict(name=name, base=base, trainable=trainable_line(model), off=dict(max_abs_logit=d)))
        print(f"peft {name:20} {info['cases'][-1]['trainable']}")
    save_case(out, info, tensors)


def families():
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "parity_cases")
    return sorted(f[:-3] for f in os.listdir(folder) if f.endswith(".py") and f not in ("__init__.py", "common.py"))


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--only", nargs="*")
    ap.add_argument("--out", default=os.path.join(ROOT, "tests/golden"))
    ap.add_argument("--data", default=os.path.join(ROOT, "../shared/data"))
    a = ap.parse_args()
    parity = os.path.join(a.out, "parity")
    os.makedirs(parity, exist_ok=True)
    for family in families():
        for c in importlib.import_module("parity_cases." + family).CASES:
            if not a.only or c["name"] in a.only or family in a.only:
                make_case(c, parity)
    if not a.only or "peft" in a.only:
        make_peft(os.path.join(a.out, "peft"))
    if os.path.isdir(a.data) and (not a.only or "real" in a.only):
        for model in ["stories260K-hf", "tinystories-656k"]:
            for kind in ["gsm8k", "qa_epic"]:
                make_real(parity, a.data, model, kind)


if __name__ == "__main__":
    main()

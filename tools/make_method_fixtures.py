#!/usr/bin/env python3
"""Makes tests/golden/methods/: what peft computes with every method, for tests/golden/test_methods.c to compare with.

    python tools/make_method_fixtures.py [NAME ...] [--out DIR] [--bases]

NAME is a case or a module of tools/method_cases/ (all of its cases). Needs torch, transformers 5, peft, safetensors. Never run
by the build or the tests.

    base_llama/, base_neox/   two small random models of unlike families, made when they are not there (--bases: anew);
                              base_bert/, base_roberta/ and base_xlmr/ have heads for classes, base_t5*/ and base_mt5/ an encoder,
                              base_gemma2/ to base_opt350m/ norms behind their branches
    <case>/start/             adapter as peft saves it, away from the identity
    <case>/end/               the same after STEPS steps of AdamW in f32, without dropout
    <case>/case.json          base, batches, optimizer, loss and gradient norm of each step, keys of adapter_config.json that differ
                              from peft's defaults, whether it merges, tolerances that differ and why; for some with a source,
                              greedy continuations of the first batch by the adapter at its end
    <case>/expected.safetensors   logits of the first batch: start, end, and of the base alone

A module of tools/method_cases/ has CASES, a list of case(...); see lora.py for the smallest one. A case is refused if its
adapter moves the logits by less than 100 times the tolerance, or if training does not move the losses.
"""

import argparse
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
from safetensors.torch import save_file

import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification, AutoModelForTokenClassification
import peft

from method_cases import common

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOL_LOGITS = 1e-4  # largest absolute difference
TOL_LOSS = 1e-4  # relative
OFF_FACTOR = 100
STEPS = 10
OPTIM = dict(betas=[0.9, 0.999], eps=1e-6, weight_decay=0.1, max_grad_norm=1.0)

BASES = dict(
    base_llama=("llama", dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                              num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, attention_bias=True,
                              tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=None)),
    base_tied=("qwen2", dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
                             num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=True,
                             bos_token_id=1, eos_token_id=2, pad_token_id=None)),
    base_neox=("gpt_neox", dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                                max_position_embeddings=64, rotary_pct=0.5, use_parallel_residual=True, hidden_dropout=0.0,
                                attention_dropout=0.0, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2,
                                pad_token_id=None)),
    base_gpt2=("gpt2", dict(vocab_size=64, n_positions=64, n_embd=32, n_layer=2, n_head=4, n_inner=48, bos_token_id=1, eos_token_id=2,
                            pad_token_id=None, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)),
    base_phi=("phi", dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                          num_key_value_heads=4, max_position_embeddings=64, partial_rotary_factor=0.5, resid_pdrop=0.0,
                          embd_pdrop=0.0, attention_dropout=0.0, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2,
                          pad_token_id=None)),
)
BERT = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64,
            layer_norm_eps=1e-5, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=3)
BASES.update(
    base_bert=("bert", dict(BERT, type_vocab_size=2, pad_token_id=0)),
    base_xlmr=("xlm-roberta", dict(BERT, type_vocab_size=1, pad_token_id=1)),
    base_t5=("t5", dict(vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_decoder_layers=3, num_heads=4,
                        relative_attention_num_buckets=8, relative_attention_max_distance=16, dropout_rate=0.0, pad_token_id=0,
                        eos_token_id=1, decoder_start_token_id=0, feed_forward_proj="gated-gelu", tie_word_embeddings=False)),
    base_roberta=("roberta", dict(BERT, type_vocab_size=1, pad_token_id=1)),
    base_t5_tied=("t5", dict(vocab_size=64, d_model=32, d_ff=48, num_layers=2, num_heads=4, d_kv=8, relative_attention_num_buckets=8,
                             relative_attention_max_distance=16, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, dropout_rate=0.0)),
    base_mt5=("mt5", dict(vocab_size=64, d_model=32, d_ff=48, num_layers=2, num_decoder_layers=1, num_heads=3, d_kv=8,
                          relative_attention_num_buckets=8, relative_attention_max_distance=16, pad_token_id=0, eos_token_id=1,
                          decoder_start_token_id=0, dropout_rate=0.0, tie_word_embeddings=False)),
)
SMALL = dict(vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
             max_position_embeddings=64, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, pad_token_id=None)
BASES.update(
    base_gemma2=("gemma2", dict(SMALL, head_dim=8, query_pre_attn_scalar=8, sliding_window=64, tie_word_embeddings=True,
                                attn_logit_softcapping=5.0, final_logit_softcapping=8.0)),
    base_gemma3=("gemma3_text", dict(SMALL, head_dim=8, query_pre_attn_scalar=8, sliding_window=64, tie_word_embeddings=True)),
    base_olmo2=("olmo2", dict(SMALL, tie_word_embeddings=False)),
    base_opt350m=("opt", dict(vocab_size=64, hidden_size=16, ffn_dim=24, num_hidden_layers=2, num_attention_heads=2,
                              max_position_embeddings=64, word_embed_proj_dim=8, do_layer_norm_before=False, dropout=0.0,
                              attention_dropout=0.0, bos_token_id=1, eos_token_id=2, pad_token_id=0)),
)
TASKS = dict(base_bert="SEQ_CLS", base_xlmr="TOKEN_CLS", base_t5="SEQ_2_SEQ_LM", base_roberta="SEQ_CLS", base_t5_tied="SEQ_2_SEQ_LM",
             base_mt5="SEQ_2_SEQ_LM")  # the others: CAUSAL_LM
AUTO = dict(CAUSAL_LM=AutoModelForCausalLM, SEQ_2_SEQ_LM=AutoModelForSeq2SeqLM, SEQ_CLS=AutoModelForSequenceClassification,
            TOKEN_CLS=AutoModelForTokenClassification)


def task_of(base):
    return TASKS.get(base, "CAUSAL_LM")


# ---- bases -------------------------------------------------------------------------------------------------------------


def randomize(model, gen, cross=None):
    """Weights large enough that every part of the model is heard in the logits."""
    for name, p in sorted(model.named_parameters()):
        r = torch.randn(p.shape, generator=gen)
        if name.endswith(".bias"):
            p.data = 0.3 * r
        elif "norm" in name.lower() or ".ln_" in name:
            p.data = 1 + 0.3 * r
        elif "relative_attention_bias" in name:
            p.data = 1.5 * r
        elif re.search(r"Attention\.[qk]\.weight", name):  # T5 does not scale its scores
            p.data = (0.9 if cross else 0.6) * r / p.shape[1] ** 0.5
        elif cross and "EncDecAttention" in name:  # the decoder listens to its encoder
            p.data = cross * r / p.shape[1] ** 0.5
        elif "_embeddings" in name or name == "shared.weight" or "embed_tokens" in name or "embed_in" in name or ".wte." in name or ".wpe." in name:
            p.data = 0.7 * r
        else:
            p.data = (1.8 if re.search(r"[qk]_proj", name) else 1.2) * r / p.shape[1] ** 0.5


def make_base(name, folder):
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    arch, cfg = BASES[name]
    gen = torch.Generator().manual_seed(sum(map(ord, name)))
    auto = AUTO[task_of(name)]
    model = auto.from_config(AutoConfig.for_model(arch, **cfg), attn_implementation="eager").float()
    randomize(model, gen, cross=2.5 if name in ("base_t5_tied", "base_mt5") else None)
    state = {n: p.detach().contiguous() for n, p in model.named_parameters()}
    save_file(state, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    model.config.architectures = [type(model).__name__]
    model.config.dtype = "float32"
    model.config.save_pretrained(folder)


# ---- computing ---------------------------------------------------------------------------------------------------------


def make_batches(gen, task="CAUSAL_LM", lengths=(5, 10), per_step=2):
    def draw(lo, hi):
        return int(torch.randint(lo, hi + 1, (1,), generator=gen))

    out = []
    for _ in range(STEPS):
        samples = []
        for _ in range(per_step):
            n = draw(*lengths)
            if task == "SEQ_2_SEQ_LM":  # source </s> and start answer </s>
                source = torch.randint(3, 64, (draw(*lengths) - 1,), generator=gen).tolist() + [1]
                samples.append(dict(source=source, ids=[0] + torch.randint(3, 64, (n - 2,), generator=gen).tolist() + [1], prompt=1))
                continue
            if task != "CAUSAL_LM":  # a class for the first row, or for most rows
                ids = torch.randint(3, 64, (n,), generator=gen).tolist()
                classes = [draw(0, 2) if (i == 0 if task == "SEQ_CLS" else draw(0, 3) > 0 or i == 0) else -1 for i in range(n)]
                samples.append(dict(ids=ids, classes=classes))
                continue
            samples.append(dict(ids=[1] + torch.randint(3, 64, (n - 2,), generator=gen).tolist() + [2], prompt=draw(1, n - 2)))
        out.append(samples)
    return out


def forward(model, samples):
    """Logits of the tokens of each sample (of its classes), one at a time; virtual tokens in front of them are left out."""
    out = []
    for s in samples:
        ids = torch.tensor([s["ids"]])
        if "source" in s:
            out.append(model(input_ids=torch.tensor([s["source"]]), decoder_input_ids=ids).logits[0])
            continue
        if "classes" in s:
            second = s.get("second_from", 0)
            types = dict(token_type_ids=torch.tensor([[int(i >= second) for i in range(len(s["ids"]))]])) if second else {}
            z = model(input_ids=ids, attention_mask=torch.ones_like(ids), **types).logits[0]
            out.append(z[None] if z.dim() == 1 else z[[i for i, k in enumerate(s["classes"]) if k >= 0]])
            continue
        out.append(model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -len(s["ids"]) :])
    return out


def step_loss(model, samples):
    total, count = 0, 0
    for s, z in zip(samples, forward(model, samples)):
        if "classes" in s:
            target = torch.tensor([k for k in s["classes"] if k >= 0])
            total = total + torch.nn.functional.cross_entropy(z, target, reduction="sum")
            count += len(target)
            continue
        first = s["prompt"]  # tokens ids[prompt:] are supervised
        target = torch.tensor(s["ids"][first:])
        total = total + torch.nn.functional.cross_entropy(z[first - 1 : len(s["ids"]) - 1], target, reduction="sum")
        count += len(target)
    return total / count


def greedy(model, samples, n_new=8, margin=2e-3):
    """What peft generates from each source, with its cache; ended with the text, or where two tokens are nearly as likely."""
    out = []
    for s in samples:
        source = torch.tensor([s["source"]])
        made = model.generate(input_ids=source, attention_mask=torch.ones_like(source), max_new_tokens=n_new, min_new_tokens=n_new,
                              do_sample=False, num_beams=1)[0].tolist()
        z = forward(model, [dict(s, ids=made)])[0]  # and the same without one
        keep = 0
        while keep < n_new and int(z[keep].argmax()) != 1 and float(torch.diff(torch.topk(z[keep], 2).values)) < -margin:
            assert made[keep + 1] == int(z[keep].argmax()), (s, made)
            keep += 1
        out.append(made[1 : keep + 1])
    return out


def no_decay(n):
    """As Trainer.get_decay_parameter_names: neither biases nor norms."""
    return re.search(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)", n.lower()) is not None


def train(model, batches, c, optim):
    params = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups = c["groups"](model, optim) if c["groups"] else [
        dict(params=[p for n, p in params if not no_decay(n)], weight_decay=optim["weight_decay"]),
        dict(params=[p for n, p in params if no_decay(n)], weight_decay=0.0),
    ]
    opt = torch.optim.AdamW(groups, lr=optim["lr"], betas=tuple(optim["betas"]), eps=optim["eps"])
    log = []
    for step, samples in enumerate(batches):
        if c["before_step"]:
            c["before_step"](model, step)
        opt.zero_grad()
        loss = step_loss(model, samples)
        (loss if c["extra_loss"] is None else loss + c["extra_loss"](model)).backward()
        norm = torch.nn.utils.clip_grad_norm_([p for _, p in params if p.grad is not None], optim["max_grad_norm"])
        log.append(dict(loss=float(loss.detach()), grad_norm=float(norm), lr=optim["lr"]))
        opt.step()
        if c["after_step"]:
            c["after_step"](model, step)
    return log


# ---- cases -------------------------------------------------------------------------------------------------------------


def load_base(c, out):
    return AUTO[task_of(c["base"])].from_pretrained(os.path.join(out, c["base"]), dtype=torch.float32, attn_implementation="eager")


def save(c, model, folder):
    os.makedirs(folder)
    c["save"](model, folder)
    for f in os.listdir(folder):
        if f.startswith("README") or f.startswith("."):
            os.remove(os.path.join(folder, f))


def config_set(path, defaults):
    """Keys that differ from what the configuration class has when it is given nothing."""
    left_out = {"base_model_name_or_path", "inference_mode", "peft_version", "auto_mapping", "revision"}
    return {k: v for k, v in json.load(open(path)).items() if k not in left_out and (k not in defaults or defaults[k] != v)}


def dump(folder, info):
    """One member a line, one step a line."""
    lines = []
    for k, v in info.items():
        rows = isinstance(v, list) and len(v) > 0
        text = "[\n  " + ",\n  ".join(json.dumps(i) for i in v) + "]" if rows else json.dumps(v)
        lines.append(f" {json.dumps(k)}: {text}")
    open(os.path.join(folder, "case.json"), "w").write("{\n" + ",\n".join(lines) + "\n}\n")


def make_case(c, out):
    folder = os.path.join(out, c["name"])
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    seed = sum(ord(ch) * (i + 1) for i, ch in enumerate(c["name"]))
    gen = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    batches = make_batches(gen, task_of(c["base"]))
    for s in [s for step in batches for s in step if c["pairs"]]:
        s["second_from"] = len(s["ids"]) // 2
    start, end = os.path.join(folder, "start"), os.path.join(folder, "end")

    with torch.no_grad():
        base = torch.cat(forward(load_base(c, out).eval(), batches[0]))
    made = c["build"](c, load_base(c, out))
    c["randomize"](c, made, gen)
    save(c, made, start)

    model = c["load"](c, load_base(c, out), start).eval()  # no dropout; gradients all the same
    with torch.no_grad():
        first = torch.cat(forward(model, batches[0]))
        untrained = [float(step_loss(model, b)) for b in batches]
    optim = dict(OPTIM, lr=c["lr"], **c["optim"])
    log = train(model, batches, c, optim)
    save(c, model, end)
    with torch.no_grad():
        trained = c["load"](c, load_base(c, out), end).eval()
        last = torch.cat(forward(trained, batches[0]))
        continuations = greedy(trained, batches[0]) if c["generates"] else None
        if c["generates"]:
            assert sum(map(len, continuations)) >= 8 and continuations != greedy(load_base(c, out).eval(), batches[0]), (c["name"], continuations)

    off = float((first - base).abs().max())
    moved = max(abs(s["loss"] - b) / b for s, b in zip(log, untrained))
    assert off > OFF_FACTOR * TOL_LOGITS, (c["name"], "the adapter should matter", off)
    assert moved > OFF_FACTOR * TOL_LOSS, (c["name"], "training should matter", moved)
    assert any(s["grad_norm"] > optim["max_grad_norm"] for s in log), (c["name"], "clipping should matter", log)
    info = dict(what=c["what"], method=c["method"], base=c["base"], architecture=load_base(c, out).config.architectures[0],
                merges=c["merges"], transformers=transformers.__version__, peft=peft.__version__, torch=torch.__version__,
                off=off, optim=optim, steps=log, batches=batches, **c["extra"])
    if continuations:
        info["greedy"] = continuations
    config = os.path.join(end, "adapter_config.json")
    if os.path.exists(config):
        info["config_set"] = config_set(config, c["defaults"]())
    for key in ("tolerance", "not_written"):
        if c[key]:
            info[key] = c[key]
    tensors = {"logits.base": base, "logits.start": first, "logits.end": last}
    save_file({k: v.float().contiguous() for k, v in tensors.items()}, os.path.join(folder, "expected.safetensors"))
    dump(folder, info)
    size = sum(os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(folder) for f in fs)
    print(f"{c['name']:28} off {off:.3f}  loss {log[0]['loss']:.4f} -> {log[-1]['loss']:.4f}, by training {moved:.3f}, "
          f"gradient {log[0]['grad_norm']:.3f}  {size // 1024} KiB")


def all_cases():
    folder = os.path.join(ROOT, "tools/method_cases")
    for f in sorted(os.listdir(folder)):
        if f.endswith(".py") and not f.startswith(("common", "__init__")):
            yield f[:-3], importlib.import_module("method_cases." + f[:-3]).CASES


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("names", nargs="*")
    ap.add_argument("--out", default=os.path.join(ROOT, "tests/golden/methods"))
    ap.add_argument("--bases", action="store_true")
    a = ap.parse_args()
    for name in BASES:
        folder = os.path.join(a.out, name)
        if a.bases or not os.path.isdir(folder):
            make_base(name, folder)
    for module, cases in all_cases():
        for c in cases:
            if not a.names or module in a.names or c["name"] in a.names:
                make_case(dict(c, method=c["method"] or module), a.out)


if __name__ == "__main__":
    main()

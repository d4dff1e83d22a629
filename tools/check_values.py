#!/usr/bin/env python3
"""Regression and several classes at once, files both ways: what is trained here opens in transformers + peft, and the other way round.

    python tools/check_values.py [--peft build/release/peft-toolkit] [--shared ../shared] [--model stories260K-hf]

For each problem type: LoRA and a new head are trained with the program on rows made up from words; the adapter and the merged folder
are opened in transformers (problem_type, id2label and logits are compared), an adapter made by peft is opened here, and a run that is
stopped half-way and resumed ends in the same bytes. By hand; needs torch, transformers 5, peft.
"""

import argparse
import filecmp
import json
import os
import random
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

transformers.logging.set_verbosity_error()
torch.set_num_threads(1)
TARGETS = ["q_proj", "v_proj"]
WORDS = "good bad day night cat dog happy sad little big tree house".split()
JOY, DREAD = {"good", "happy", "day"}, {"bad", "sad", "night"}


def rows(n):
    rng = random.Random(3)
    for _ in range(n):
        words = [rng.choice(WORDS) for _ in range(rng.randint(3, 9))]
        joy, dread = len(JOY & set(words)), len(DREAD & set(words))
        yield dict(text=" ".join(words), score=2.5 + joy - 0.75 * dread, tags=["joy"] * (joy > 0) + ["dread"] * (dread > 0))


def run(*command, **kw):
    r = subprocess.run(command, capture_output=True, text=True, **kw)
    if r.returncode != 0:
        sys.exit(f"{' '.join(command)}: {r.stderr[-2000:]}")
    return r.stdout


def open_there(path, adapter=None, **kw):
    model = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32, **kw)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = 0
    return (model if adapter is None else PeftModel.from_pretrained(model, adapter)).eval()


def outputs_there(model, tok, texts, multi):
    with torch.no_grad():
        z = torch.cat([model(input_ids=torch.tensor([tok(t)["input_ids"]])).logits for t in texts])
    return (torch.sigmoid(z) if multi else z).tolist()


def outputs_here(program, texts, *where):
    out = []
    for line in run(program, "classify", *where, input="".join(json.dumps(t) + "\n" for t in texts)).splitlines():
        v = json.loads(line)
        out.append([v["value"]] if "value" in v else list((v.get("scores") or v["values"]).values()))
    return out


def agree(what, a, b):
    worst = max(abs(x - y) for p, q in zip(a, b) for x, y in zip(p, q))
    print(f"  {what:34} {worst:.1e}")
    assert worst <= 1e-4, what


def check(a, base, tok, label, n_labels, multi):
    work = tempfile.mkdtemp()
    at = lambda name: os.path.join(work, name)
    data = list(rows(96))
    with open(at("rows.jsonl"), "w") as f:
        f.writelines(json.dumps(r) + "\n" for r in data)
    config = dict(model=dict(name_or_path=base), peft=dict(lora=dict(r=4, alpha=8, target_modules=TARGETS, dropout=0.1)),
                  data=dict(train=at("rows.jsonl"), test_size=16, text="{text}", label=label),
                  training=dict(output_dir=at("ours"), max_steps=40, per_device_train_batch_size=8, learning_rate=5e-3, save_steps=20, eval_steps=20))
    json.dump(config, open(at("run.yaml"), "w"))
    run(a.peft, "train", "-q", at("run.yaml"))
    run(a.peft, "train", "-q", at("run.yaml"), "training.output_dir=" + at("again"), "training.resume_from_checkpoint=" + at("ours/checkpoint-20"))
    same = filecmp.cmp(at("ours/adapter_model.safetensors"), at("again/adapter_model.safetensors"), shallow=False)
    print(f"  resumed from the middle            {'the same bytes' if same else 'DIFFERS'}")
    assert same
    texts = [r["text"] for r in data[:40]]
    mine = outputs_here(a.peft, texts, "--adapter", at("ours"))
    agree("our adapter in peft", mine, outputs_there(open_there(base, at("ours"), num_labels=n_labels), tok, texts, multi))
    run(a.peft, "merge", "--ckpt", at("ours"), "--output", at("merged"))
    merged = open_there(at("merged"))
    print(f"  merged: {merged.config.problem_type} {merged.config.id2label}")
    assert merged.config.problem_type == ("multi_label_classification" if multi else "regression") and merged.config.num_labels == n_labels
    agree("merged, in transformers", mine, outputs_there(merged, tok, texts, multi))
    agree("merged, here", mine, outputs_here(a.peft, texts, "--model", at("merged")))
    torch.manual_seed(1)
    fresh = open_there(base, num_labels=n_labels, problem_type="multi_label_classification" if multi else "regression")
    theirs = get_peft_model(fresh, LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=8, target_modules=TARGETS)).eval()
    for n, p in theirs.named_parameters():
        if p.requires_grad:
            p.data += 0.05 * torch.randn(p.shape)
    theirs.save_pretrained(at("theirs"))
    json.dump(dict(config, model=dict(name_or_path=base, problem_type="multi_label_classification" if multi else "regression")), open(at("run.yaml"), "w"))
    run(a.peft, "eval", "-q", at("run.yaml"), "--adapter", at("theirs"), "--predictions", at("p.jsonl"), "training.output_dir=" + at("none"))
    told = [json.loads(line) for line in open(at("p.jsonl"))]
    got = [t["probability"] if multi else [float(x) for x in t["prediction"].split(", ")] for t in told]
    agree("peft's adapter here", got, outputs_there(theirs, tok, [t["prompt"] for t in told], multi))


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--peft", default="build/release/peft-toolkit")
    ap.add_argument("--shared", default="../shared")
    ap.add_argument("--model", default="stories260K-hf")
    a = ap.parse_args()
    base = os.path.abspath(os.path.join(a.shared, "data/models", a.model))
    tok = AutoTokenizer.from_pretrained(base)
    for label, n, multi in (("score", 1, False), ("tags", 2, True)):
        print(label)
        check(a, base, tok, label, n, multi)


if __name__ == "__main__":
    main()

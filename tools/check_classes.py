#!/usr/bin/env python3
"""SEQ_CLS on a real data set, here and with transformers + peft: two accuracies, and files both ways.

    python tools/check_classes.py [--peft build/release/peft-toolkit] [--shared ../shared] [--model stories260K-hf] [--epochs 3]

Trains LoRA and a new head on sst2 with the program, then with transformers + peft: the same model, hyperparameters and number of
steps; first weights and the order of rows differ. Then each side opens what the other one made: probabilities of the dev rows
agree within 1e-4, and so do those of the merged folder. By hand; needs torch, transformers 5, peft.
"""

import argparse
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup

transformers.logging.set_verbosity_error()
torch.set_num_threads(1)

LORA = dict(r=8, lora_alpha=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
BATCH, LR, DECAY = 16, 2e-3, 0.01


def read(path):
    return [(line.rsplit("\t", 1)[0], int(line.rsplit("\t", 1)[1])) for line in open(path, encoding="utf-8").read().splitlines() if line]


def open_oracle(path, adapter=None, **kw):
    model = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32, **kw)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = 0
    return (model if adapter is None else PeftModel.from_pretrained(model, adapter)).eval()


def batches(tok, rows, size, pad):
    for i in range(0, len(rows), size):
        part = [tok(t)["input_ids"] for t, _ in rows[i : i + size]]
        n = max(map(len, part))
        ids = torch.tensor([p + [pad] * (n - len(p)) for p in part])
        mask = torch.tensor([[1] * len(p) + [0] * (n - len(p)) for p in part])
        yield ids, mask, torch.tensor([y for _, y in rows[i : i + size]])


def probabilities(model, tok, rows):
    """Of class 1. One text at a time: nothing depends on padding."""
    with torch.no_grad():
        return [float(torch.softmax(model(input_ids=torch.tensor([tok(t)["input_ids"]])).logits[0], -1)[1]) for t, _ in rows]


def accuracy(p, rows):
    return sum((x > 0.5) == bool(y) for x, (_, y) in zip(p, rows)) / len(rows)


def train_oracle(base, tok, rows, epochs, out):
    torch.manual_seed(0)
    model = open_oracle(base, num_labels=2)
    model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", **LORA))
    model.train()
    params = [p for p in model.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(params, lr=LR, weight_decay=DECAY)
    steps = epochs * math.ceil(len(rows) / BATCH)
    schedule = get_linear_schedule_with_warmup(opt, 0, steps)
    rng = random.Random(0)
    for _ in range(epochs):
        order = rows[:]
        rng.shuffle(order)
        for ids, mask, y in batches(tok, order, BATCH, 0):
            opt.zero_grad()
            torch.nn.functional.cross_entropy(model(input_ids=ids, attention_mask=mask).logits, y).backward()
            torch.nn.utils.clip_grad_norm_(params, 1.0)
            opt.step()
            schedule.step()
    model.save_pretrained(out)
    return model.eval()


def config(a, base, out):
    d = os.path.join(a.shared, "data/datasets/sst2")
    return dict(
        model=dict(name_or_path=base), peft=dict(method="lora", task_type="SEQ_CLS", lora=dict(r=LORA["r"], alpha=LORA["lora_alpha"], target_modules=LORA["target_modules"])),
        data=dict(train=d + "/train.tsv", test=d + "/dev.tsv", columns=["sentence", "label"], quotes=False, text="{sentence}", label="label"),
        training=dict(output_dir=out, num_train_epochs=a.epochs, per_device_train_batch_size=BATCH, learning_rate=LR, weight_decay=DECAY, max_grad_norm=1, warmup_ratio=0,
                      eval_strategy="epoch", save_strategy="no", overwrite_output_dir=True),
    )


def run(*command, **kw):
    r = subprocess.run(command, capture_output=True, text=True, **kw)
    if r.returncode != 0:
        sys.exit(f"{' '.join(command)}: {r.stderr[-2000:]}")
    return r.stdout


def classify(program, rows, *where):
    lines = "".join(json.dumps(t) + "\n" for t, _ in rows)
    out = []
    for line in run(program, "classify", *where, input=lines).splitlines():
        scores = json.loads(line)["scores"]
        out.append(list(scores.values())[1])
    return out


def agree(what, a, b, tolerance=1e-4):
    d = max(abs(x - y) for x, y in zip(a, b))
    print(f"  {what}: largest difference of a probability {d:.1e}")
    assert len(a) == len(b) and d <= tolerance


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--peft", default="build/release/peft-toolkit")
    ap.add_argument("--shared", default="../shared")
    ap.add_argument("--model", default="stories260K-hf")
    ap.add_argument("--epochs", type=int, default=3)
    ap.add_argument("--rows", type=int, default=200, help="dev rows compared one by one")
    a = ap.parse_args()
    base = os.path.abspath(os.path.join(a.shared, "data/models", a.model))
    train, dev, test = (read(os.path.join(a.shared, f"data/datasets/sst2/{x}.tsv")) for x in ("train", "dev", "test"))
    tok = AutoTokenizer.from_pretrained(base)
    work = tempfile.mkdtemp()
    ours, theirs, merged, cfg = (os.path.join(work, x) for x in ("ours", "theirs", "merged", "run.yaml"))
    json.dump(config(a, base, ours), open(cfg, "w"))  # JSON is YAML

    run(a.peft, "train", "-q", cfg)
    here = {name: accuracy(classify(a.peft, rows, "--adapter", ours), rows) for name, rows in (("dev", dev), ("test", test))}
    print(f"here:                 dev {here['dev']:.4f}  test {here['test']:.4f}", flush=True)
    model = train_oracle(base, tok, train, a.epochs, theirs)
    there = {name: accuracy(probabilities(model, tok, rows), rows) for name, rows in (("dev", dev), ("test", test))}
    print(f"transformers + peft:  dev {there['dev']:.4f}  test {there['test']:.4f}", flush=True)

    some = dev[: a.rows]
    mine = classify(a.peft, some, "--adapter", ours)
    agree("our adapter in peft", mine, probabilities(open_oracle(base, ours, num_labels=2), tok, some))
    agree("peft's adapter here", classify(a.peft, some, "--model", base, "--adapter", theirs), probabilities(model, tok, some))
    run(a.peft, "merge", "--ckpt", ours, "--output", merged)
    made = open_oracle(merged)
    agree("merged, in transformers", mine, probabilities(made, tok, some))
    agree("merged, here", mine, classify(a.peft, some, "--model", merged))
    print("  labels:", made.config.id2label)
    shutil.rmtree(work)


if __name__ == "__main__":
    main()

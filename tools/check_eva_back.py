#!/usr/bin/env python3
"""Adapters that began with EVA here load in peft with their ranks and alphas, and peft merges them to the same weights.

    python tools/check_eva_back.py build/release/peft-toolkit

Run by hand; needs what tools/make_eva_fixtures.py needs. Trains eight steps on toy bases of tests/golden, merges here and there, and
fails where a weight differs by more than 1e-6 or the adapter changes none."""

import json
import os
import shutil
import subprocess
import sys
import tempfile

import peft
import torch
import transformers
from safetensors.torch import load_file

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "golden")
ROWS = "train: {golden}/eva/rows.jsonl, input_ids: input_ids"
PAIRS = 'train: {golden}/eva/pairs.jsonl, prompt: "{{source}}", target: "{{target}}"'
LM, S2S, CLS = transformers.AutoModelForCausalLM, transformers.AutoModelForSeq2SeqLM, transformers.AutoModelForSequenceClassification
CASES = [
    ("plain", "methods/base_llama", ROWS, "r: 4", LM, "CAUSAL_LM"),
    ("left_out", "methods/base_llama", ROWS, "r: 1, eva_config: {rho: 9, use_label_mask: false}", LM, "CAUSAL_LM"),
    ("patterns", "methods/base_llama", ROWS, "r: 3, use_rslora: true, rank_pattern: {o_proj: 5}, alpha_pattern: {down_proj: 11}", LM, "CAUSAL_LM"),
    ("gpt2", "methods/base_gpt2", ROWS, "r: 3", LM, "CAUSAL_LM"),
    ("neox_dora", "methods/base_neox", ROWS, "r: 3, use_dora: true", LM, "CAUSAL_LM"),
    ("t5", "parity/t5_cross", PAIRS, "r: 3", S2S, "SEQ_2_SEQ_LM"),
    ("bert", "classes/bert_seq", 'train: texts.jsonl, text: "{{text}}", label: label', "r: 3", CLS, "SEQ_CLS"),
]


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.stderr}")


def check(program, name, base, data, lora, kind, task):
    shutil.copytree(os.path.join(GOLDEN, "eva", "word_ids"), "base-" + name)
    for f in ("config.json", "model.safetensors"):
        shutil.copy(os.path.join(GOLDEN, base, f), "base-" + name)
    with open(name + ".yaml", "w") as f:
        f.write(f"model: {{name_or_path: base-{name}}}\n"
                f"peft: {{method: lora, task_type: {task}, lora: {{alpha: 6, init_lora_weights: eva, target_modules: all-linear, {lora}}}}}\n"
                f"data: {{{data.format(golden=os.path.abspath(GOLDEN))}}}\n"
                f"training: {{output_dir: {name}, max_steps: 8, per_device_train_batch_size: 8, learning_rate: 0.02}}\n")
    run(program, "train", name + ".yaml")
    run(program, "merge", "--ckpt", name, "--output", "merged-" + name)
    before = kind.from_pretrained("base-" + name, dtype=torch.float32).state_dict()
    model = peft.PeftModel.from_pretrained(kind.from_pretrained("base-" + name, dtype=torch.float32), name)
    ranks = sorted(m.r["default"] for m in model.modules() if isinstance(m, peft.tuners.lora.Linear))
    theirs, ours = model.merge_and_unload().state_dict(), load_file(f"merged-{name}/model.safetensors")
    names = {k: next(n for n in theirs if n == k or n.endswith("." + k)) for k in ours}
    worst = max(float((theirs[n] - ours[k]).abs().max()) for k, n in names.items())
    changed = sum(float((theirs[n] - before[n]).abs().max()) > 1e-4 for n in names.values())
    patterns = len(json.load(open(f"{name}/adapter_config.json")).get("rank_pattern", {}))
    good = worst <= 1e-6 and changed >= len(ranks)
    print(f"{name:12} ranks {ranks[0]} to {ranks[-1]} of {len(ranks)} modules, {patterns} in rank_pattern, {changed} weights changed, "
          f"merged there and here: {worst:.1e}{'' if good else '   WRONG'}")
    return good


def main():
    program = os.path.abspath(sys.argv[1])
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        with open("texts.jsonl", "w") as f:
            for i in range(30):
                f.write(json.dumps(dict(text=" ".join(f"w{5 + (i * i + 7 * k) % 58}" for k in range(6)), label=i % 3)) + "\n")
        good = [check(program, *c) for c in CASES]
        os.chdir("/")
    sys.exit(not all(good))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Adapters and merged models of every family load in peft and transformers: the same numbers there.

    cmake --build build/release --target peft-toolkit
    python3 tools/check_families.py [--build build/release] [--only CASE ...]

Needs torch, transformers 5, peft, safetensors; never run by the build or the tests. For every folder of tests/golden/parity with a model
and an adapter: the adapter is folded in by this program, transformers loads the folder without a missing or unexpected key, and its
logits are compared with those that transformers and peft gave when the fixture was made. They may differ by 1e-4; narrow types
(stored bf16 and f16) round every merged weight and may differ by 2e-1. Then each of TRAINED is trained here for some steps with the
family's own target modules; peft loads what came out, and its negative log-likelihoods are compared with `score` (2e-4). One line a
case; exit code 1 if one fails.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
warnings.filterwarnings("ignore")

import tokenizers  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from peft import PeftModel  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)


def with_tokenizer(folder, base):
    """The fixtures have none, which the program asks for: 64 tokens of one letter."""
    shutil.copytree(folder, base)
    letters = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={chr(48 + i): i for i in range(64)}, merges=[]))
    letters.save(base + "/tokenizer.json")


def check(program, folder, work):
    info = json.load(open(folder + "/case.json"))
    out = os.path.join(work, os.path.basename(folder))
    base = out + "-base"
    with_tokenizer(folder, base)
    r = subprocess.run([program, "merge", "-q", "--no-verify", "--ckpt", base + "/adapter", "--model", base, "--output", out],
                       capture_output=True, text=True)
    if r.returncode != 0:
        return False, r.stderr.strip()
    config = json.load(open(folder + "/config.json"))
    kind = "sdpa" if config.get("alibi") else "eager"  # Falcon's "eager" adds ALiBi twice
    model, report = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, attn_implementation=kind, output_loading_info=True)
    odd = [k for key in ("missing_keys", "unexpected_keys", "mismatched_keys") for k in report[key] if not k.endswith("masked_bias")]
    with torch.no_grad():
        z = torch.cat([model(input_ids=torch.tensor([s["ids"]])).logits[0] for s in info["batches"][0]])
    d = float((z - load_file(folder + "/expected.safetensors")["logits"]).abs().max())
    dtype = config.get("dtype") or config.get("torch_dtype")
    good = d <= (1e-4 if dtype == "float32" else 2e-1) and not odd
    return good, f"{d:.1e} {dtype} {' '.join(odd)}"


TRAINED = ["phi_2", "neox_parallel", "gpt2", "bloom", "opt", "opt_350m", "falcon_7b", "falcon_40b", "falcon_rw", "stablelm_12b",
           "gemma", "gemma2", "gemma3", "phi3", "olmo2", "granite", "mixtral", "mixtral_aux", "qwen3_moe"]
TARGETS = {  # where peft has no usual ones, and to have the experts in it
    "phi3": ["qkv_proj", "gate_up_proj"], "olmo2": "all-linear", "granite": ["q_proj", "down_proj"],
    "mixtral": ["q_proj", "w1", "w2", "w3"], "qwen3_moe": ["q_proj", "v_proj"],
}


def check_trained(program, folder, work):
    out = os.path.join(work, os.path.basename(folder) + "-trained")
    base = out + "-base"
    with_tokenizer(folder, base)
    with open(out + ".csv", "w") as f:
        f.write("q,a\n" + "".join(f"{chr(51 + i % 40)}{chr(60 + i % 20)},{chr(55 + i % 30)}{chr(53 + i % 7)}A\n" for i in range(32)))
    name = os.path.basename(folder)
    peft = dict(method="lora", **({"lora": dict(target_modules=TARGETS[name])} if name in TARGETS else {}))
    config = dict(model=dict(name_or_path=base), peft=peft, seed=7, data=dict(train=out + ".csv", prompt="{q}", target="{a}"),
                  training=dict(output_dir=out, max_steps=6, learning_rate=0.05, per_device_train_batch_size=8))
    with open(out + ".yaml", "w") as f:
        json.dump(config, f)  # JSON is YAML
    r = subprocess.run([program, "train", "-q", "--config", out + ".yaml"], capture_output=True, text=True)
    if r.returncode != 0:
        return False, r.stderr.strip()
    ids = [s["ids"] for s in json.load(open(folder + "/case.json"))["batches"][0]]
    r = subprocess.run([program, "score", "--model", base, "--adapter", out], input="".join(json.dumps(i) + "\n" for i in ids),
                       capture_output=True, text=True)
    if r.returncode != 0:
        return False, r.stderr.strip()
    mine = [torch.tensor(json.loads(line)["nll"]) for line in r.stdout.splitlines()]
    kind = "sdpa" if json.load(open(base + "/config.json")).get("alibi") else "eager"
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation=kind)
    before = nll(plain, ids)
    theirs = nll(PeftModel.from_pretrained(plain, out), ids)
    d = max(float((a - b).abs().max()) for a, b in zip(mine, theirs))
    moved = max(float((a - b).abs().max()) for a, b in zip(before, theirs))
    targets = json.load(open(out + "/adapter_config.json"))["target_modules"]
    return d <= 2e-4 and moved > 2e-2, f"{d:.1e} moved {moved:.2f}  {' '.join(sorted(targets))}"


def nll(model, ids):
    with torch.no_grad():
        z = [model(input_ids=torch.tensor([i])).logits[0] for i in ids]
    return [torch.nn.functional.cross_entropy(a[:-1], torch.tensor(i[1:]), reduction="none") for a, i in zip(z, ids)]


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--build", default=root + "/build/release")
    p.add_argument("--only", nargs="*")
    a = p.parse_args()
    parity, results = root + "/tests/golden/parity", []
    with tempfile.TemporaryDirectory() as work:
        for name in sorted(os.listdir(parity)):
            folder = os.path.join(parity, name)
            if not os.path.isdir(folder + "/adapter") or not os.path.exists(folder + "/config.json") or (a.only and name not in a.only):
                continue
            good, text = check(a.build + "/peft-toolkit", folder, work)
            results.append(good)
            print(f"{name:24} {'ok    ' if good else 'FAILED'} {text}", flush=True)
        for name in TRAINED:
            if not a.only or name in a.only:
                good, text = check_trained(a.build + "/peft-toolkit", os.path.join(parity, name), work)
                results.append(good)
                print(f"{name + ', trained':24} {'ok    ' if good else 'FAILED'} {text}", flush=True)
    print(f"\n{sum(results)} of {len(results)} hold")
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(main())

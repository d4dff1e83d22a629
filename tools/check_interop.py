#!/usr/bin/env python3
"""Adapters and merged models go both ways between this program and transformers + peft: the same logits.

    cmake --build build/release --target peft-toolkit bench_logit_lines
    python3 tools/check_interop.py [--build build/release] [--data ../shared/data] [--models NAME|DIR ...] [--only CASE ...]

Needs torch, transformers 5, peft, safetensors; never run by the build or the tests. For each model and each kind of adapter:

    ours -> peft     trained here for a few steps; peft loads the folder; logits compared
    peft -> ours     made by peft with random weights; loaded here; logits compared
    merged           the first one folded in (whole, sharded, bfloat16, .pt); transformers loads the folder; logits compared
                     with our base + adapter; the .pt opens with weights_only=True and holds the folder's tensors bit for bit
    score            the program's nll per token against what transformers' logits give

Compared is the largest |difference| of a logit over all positions of TEXTS texts, whole vocabulary, f32 on both sides; it may be
1e-4. "moved" is how far the adapter moves the logits: at least 100 times the tolerance, or the case would prove nothing. One line
a check; exit code 1 if one fails.
"""
import argparse
import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
warnings.filterwarnings("ignore")

import numpy as np  # noqa: E402
import peft  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
import transformers  # noqa: E402
from peft import LoraConfig, PeftModel, get_peft_model  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)

TOLERANCE = 1e-4
MOVED = 100 * TOLERANCE
TEXTS, TOKENS = 8, 96
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

# the settings in the words of peft; `untied` when the adapter changes only one of two that share a matrix
CASES = [
    ("lora", dict(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], lora_dropout=0.05), False),
    ("rslora", dict(r=4, lora_alpha=6, use_rslora=True, target_modules=ALL), False),
    ("rank_pattern", dict(r=4, lora_alpha=8, target_modules=ALL, rank_pattern={"q_proj": 2, r"layers\.1\.mlp\.\w+": 6},
                          alpha_pattern={"v_proj": 5, "(o|down)_proj": 24}), False),
    ("regex", dict(r=4, target_modules=r".*\.layers\.[01]\.(self_attn\.[qv]|mlp\.up)_proj"), False),
    ("one_layer", dict(r=4, target_modules=["q_proj", "down_proj"], layers_to_transform=[1], exclude_modules=["k_proj"]), False),
    ("modules_to_save", dict(r=4, target_modules=["q_proj"], modules_to_save=["input_layernorm", "norm"]), False),
    ("saved_head", dict(r=4, target_modules=["v_proj"], modules_to_save=["lm_head"]), True),
    ("embedding", dict(r=4, lora_alpha=8, target_modules=["embed_tokens", "v_proj"]), True),
]
OUR_WORDS = dict(r="r", lora_alpha="alpha", lora_dropout="dropout")
results = []


def result(model, case, what, good, text):
    results.append(good)
    print(f"{model:18} {case:16} {what:22} {'ok    ' if good else 'FAILED'} {text}", flush=True)


def run(*words, stdin=None):
    r = subprocess.run(words, input=stdin, capture_output=True)
    if r.returncode != 0:
        raise SystemExit(f"{' '.join(words)}\n{r.stderr.decode()}")
    return r.stdout


class Ours:
    def __init__(self, build):
        self.program, self.driver = build + "/peft-toolkit", build + "/bench_logit_lines"
        for f in (self.program, self.driver):
            if not os.path.exists(f):
                raise SystemExit(f"{f} is missing; cmake --build {build} --target peft-toolkit bench_logit_lines")

    def ids(self, model, texts):
        out = run(self.program, "tokenize", "--model", model, stdin="".join(json.dumps(t) + "\n" for t in texts).encode())
        return [json.loads(line)[:TOKENS] for line in out.decode().splitlines()]

    def logits(self, ids, model, adapter=None):
        lines = "".join(json.dumps(i) + "\n" for i in ids).encode()
        flat = np.frombuffer(run(self.driver, model, *([adapter] if adapter else []), stdin=lines), dtype="<f4")
        return torch.from_numpy(flat.reshape(sum(map(len, ids)), -1).copy())

    def score(self, ids, model, adapter=None):
        lines = "".join(json.dumps(i) + "\n" for i in ids).encode()
        out = run(self.program, "score", "--model", model, *(["--adapter", adapter] if adapter else []), stdin=lines)
        return torch.tensor([x for line in out.decode().splitlines() for x in json.loads(line)["nll"]], dtype=torch.float64)


def theirs(ids, model):
    model.eval()
    with torch.no_grad():
        return torch.cat([model(input_ids=torch.tensor([i])).logits[0] for i in ids])


def nll_of(ids, logits):
    out, at = [], 0
    for i in ids:
        out.append(F.cross_entropy(logits[at:at + len(i) - 1].double(), torch.tensor(i[1:]), reduction="none"))
        at += len(i)
    return torch.cat(out)


def base_of(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def far(a, b):
    return float((a.double() - b.double()).abs().max()) if a.shape == b.shape else float("nan")


def compare(name, case, what, ids, mine, model, base):
    """mine against the model in f32; how far both are from the model in f64 is told, too. Returns the f32 logits."""
    z = theirs(ids, model)
    exact = theirs(ids, model.double())
    d, moved = far(mine, z), far(z, base)
    result(name, case, what, d <= TOLERANCE and moved >= MOVED,
           f"{d:.1e}  to f64: ours {far(mine, exact):.1e}, theirs {far(z, exact):.1e}; moved {moved:.2f}, largest {float(z.abs().max()):.1f}")
    return z


def texts_of(data):
    rows = [json.loads(line) for line in open(data + "/datasets/gsm8k/test.jsonl", encoding="utf-8").readlines()[:TEXTS // 2]]
    stories = open(data + "/datasets/tinystories/test.txt", encoding="utf-8").read().split("<|endoftext|>")
    stories = [s.strip() for s in stories if len(s) > 80]
    return [f"Q: {r['question']}\nA: {r['answer']}" for r in rows] + stories[:TEXTS - len(rows)]


def train(ours, model, lora, data, out):
    words = {OUR_WORDS.get(k, k): v for k, v in lora.items()}
    config = dict(model=dict(name_or_path=model), peft=dict(method="lora", lora=words), seed=7,
                  data=dict(train=data + "/datasets/qa-epic/train.csv", prompt="Q: {question}\nA:", target=" {answer}", overlength="drop"),
                  training=dict(output_dir=out, max_steps=8, learning_rate=0.01, lr_scheduler_type="constant", save_steps=4,
                                per_device_train_batch_size=8))
    path = out + ".yaml"
    with open(path, "w") as f:
        json.dump(config, f)  # JSON is YAML
    run(ours.program, "train", "-q", "--config", path)


def random_adapter(model, lora, out, gen):
    """Random A and B; what is saved whole is moved away from the base. Not larger: with logits thrown about by 25, transformers'
    own f32 is 1.6e-4 away from its f64."""
    m = get_peft_model(base_of(model), LoraConfig(**{**dict(task_type="CAUSAL_LM"), **lora}))
    for name, p in sorted((n, p) for n, p in m.named_parameters() if p.requires_grad):
        r = torch.randn(p.shape, generator=gen)
        p.data = 0.1 * r / p.shape[-1] ** 0.25 if "lora_" in name else p.data + 0.3 * r * p.data.abs().mean()
    m.peft_config["default"].base_model_name_or_path = model
    m.save_pretrained(out)


def load_adapter(model, folder):
    return PeftModel.from_pretrained(base_of(model), folder)


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def check_merged(ours, name, case, model, adapter, ids, right, untied, work):
    kinds = [("merged", []), ("merged, sharded", ["--max-shard-size", "300KB"]), ("merged, bfloat16", ["--dtype", "bfloat16"])]
    for what, flags in kinds:
        out = f"{work}/{case}-{what.replace(', ', '-')}"
        run(ours.program, "merge", "-q", "--ckpt", adapter, "--model", model, "--output", out, *flags)
        files = sorted(glob.glob(out + "/*.safetensors"))
        state = {k: v for f in files for k, v in load_file(f).items()}
        tied = json.load(open(out + "/config.json")).get("tie_word_embeddings", False)
        # bfloat16 rounds every weight: compared with the same folder opened here
        d = far(theirs(ids, base_of(out)), right if "bfloat16" not in what else ours.logits(ids, out))
        good = d <= TOLERANCE and tied == (not untied) and (len(files) > 1) == ("sharded" in what)
        good = good and ("bfloat16" not in what or all(v.dtype == torch.bfloat16 for v in state.values()))
        result(name, case, what, good, f"{d:.1e}  {len(state)} tensors in {len(files)} files, {'tied' if tied else 'untied'}")
        if what == "merged":
            check_pt(ours, name, case, model, adapter, state, out + ".pt")


def check_pt(ours, name, case, model, adapter, state, path):
    run(ours.program, "merge", "-q", "--ckpt", adapter, "--model", model, "--output", path)
    loaded = torch.load(path, weights_only=True)
    bits = loaded.keys() == state.keys() and all(same_bits(loaded[k], state[k]) for k in state)
    result(name, case, ".pt, weights_only", bits, f"{len(loaded)} tensors, {'equal bit for bit' if bits else 'DIFFERENT'}")


def check(ours, name, model, data, case, lora, untied, ids, base, work):
    adapter, made = f"{work}/{case}", f"{work}/{case}-by-peft"
    train(ours, model, lora, data, adapter)
    mine = ours.logits(ids, model, adapter)
    z = compare(name, case, "ours -> peft", ids, mine, load_adapter(model, adapter), base)
    s = far(ours.score(ids, model, adapter), nll_of(ids, z))
    result(name, case, "score", s <= TOLERANCE, f"{s:.1e}")
    half = adapter + "/checkpoint-4"
    compare(name, case, "checkpoint -> peft", ids, ours.logits(ids, model, half), load_adapter(model, half), base)
    random_adapter(model, lora, made, torch.Generator().manual_seed(len(case)))
    compare(name, case, "peft -> ours", ids, ours.logits(ids, model, made), load_adapter(model, made), base)
    check_merged(ours, name, case, model, adapter, ids, mine, untied, work)


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--build", default=root + "/build/release")
    p.add_argument("--data", default=root + "/../shared/data")
    p.add_argument("--models", nargs="+", default=["stories260K-hf", "tinystories-656k"])
    p.add_argument("--only", nargs="*")
    p.add_argument("--keep", help="leave what is made in this folder")
    a = p.parse_args()
    ours, data = Ours(a.build), os.path.abspath(a.data)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}; tolerance {TOLERANCE:g}\n")
    for m in a.models:
        model = os.path.abspath(m) if os.path.isdir(m) else f"{data}/models/{m}"
        name = os.path.basename(model)
        work = f"{os.path.abspath(a.keep)}/{name}" if a.keep else tempfile.mkdtemp()
        os.makedirs(work, exist_ok=True)
        try:
            ids = ours.ids(model, texts_of(data))
            base = theirs(ids, base_of(model))
            d = far(ours.logits(ids, model), base)
            result(name, "base", "no adapter", d <= TOLERANCE, f"{d:.1e}  {sum(map(len, ids))} positions, largest logit {float(base.abs().max()):.1f}")
            for case, lora, untied in CASES:
                if not a.only or case in a.only:
                    check(ours, name, model, data, case, lora, untied, ids, base, work)
        finally:
            if not a.keep:
                shutil.rmtree(work)
    print(f"\n{sum(results)} of {len(results)} checks hold")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())

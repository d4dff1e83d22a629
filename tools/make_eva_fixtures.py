#!/usr/bin/env python3
"""Makes tests/golden/eva/: what EVA (arXiv 2410.07170) should begin with, for tests/recipes/test_first_look.c.

    python tools/make_eva_fixtures.py [--out DIR]

    rows.jsonl           token rows, some labels -100
    <case>.json          ranks and alphas by module
    <case>.safetensors   A by module: rows of V of an exact PCA (torch.linalg.svd in double) of what the layers of
                         tests/golden/methods/base_llama see; peft's is an incremental approximation of that

The shares of the variance are spread as peft's _get_rank_distribution does it. Signs are free."""

import argparse
import json
import os

import torch
import transformers
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "..", "tests", "golden")
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = [
    dict(name="plain", r=4, alpha=8, rho=2.0, mask=True, whiten=False, adjust=True),
    dict(name="even", r=4, alpha=8, rho=1.0, mask=True, whiten=True, adjust=True),
    dict(name="dropped", r=1, alpha=6, rho=9.0, mask=False, whiten=False, adjust=True),
    dict(name="fixed_alpha", r=3, alpha=6, rho=2.5, mask=True, whiten=False, adjust=False),
]


def make_rows(gen):
    rows = []
    for _ in range(24):
        n = int(torch.randint(10, 20, (1,), generator=gen))
        ids = torch.randint(3, 64, (n,), generator=gen).tolist()
        prompt = int(torch.randint(2, 6, (1,), generator=gen))
        labels = [-100] * prompt + ids[prompt:]
        labels[prompt + 2] = -100  # a gap
        rows.append(dict(input_ids=ids, labels=labels))
    return rows


def inputs_of(model, rows, masked):
    seen, keep = {}, []

    def hook(name):
        return lambda module, args, output: seen.setdefault(name, []).append(args[0][0][keep[0]].double())

    handles = [m.register_forward_hook(hook(n)) for n, m in model.named_modules() if n.split(".")[-1] in ALL]
    for row in rows:
        keep[:] = [torch.tensor([not masked or v != -100 for v in row["labels"]])]
        with torch.no_grad():
            model(torch.tensor([row["input_ids"]]))
    for h in handles:
        h.remove()
    return {n: torch.cat(x) for n, x in seen.items()}


def make_case(c, model, rows, out):
    parts = {}
    for name, x in inputs_of(model, rows, c["mask"]).items():
        x = x - x.mean(0)
        _, s, v = torch.linalg.svd(x, full_matrices=False)
        parts[name] = (s, v, s**2 / (s**2).sum())
    most = round(c["r"] * c["rho"])
    order = {n: i for i, n in enumerate(parts)}
    best = sorted((-float(share[i]), order[n], i, n) for n, (_, _, share) in parts.items() for i in range(most))
    budget = c["r"] * len(parts)
    ranks = {n: 0 for n in parts}
    for *_, n in best[:budget]:
        ranks[n] += 1
    # inputs that several layers share are equal shares: the cut may go through them, between different ones it must be clear
    a, b = best[budget - 1], best[budget] if budget < len(best) else None
    if b is not None:
        print(c["name"], "cut between", a[0], b[0], "the same input" if abs(a[0] - b[0]) < 1e-9 else "")
    alphas = {n: c["alpha"] * (k / c["r"] if c["adjust"] and k else 1) for n, k in ranks.items()}
    tensors = {}
    for n, (s, v, _) in parts.items():
        if ranks[n] > 0:
            a = v[: ranks[n]]
            tensors[n] = (a / s[: ranks[n], None].sqrt() if c["whiten"] else a).float().contiguous()
    save_file(tensors, os.path.join(out, c["name"] + ".safetensors"))
    with open(os.path.join(out, c["name"] + ".json"), "w") as f:
        json.dump({**c, "ranks": ranks, "alphas": alphas}, f, indent=1)
        f.write("\n")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--out", default=os.path.join(GOLDEN, "eva"))
    out = p.parse_args().out
    os.makedirs(out, exist_ok=True)
    torch.set_num_threads(1)
    rows = make_rows(torch.Generator().manual_seed(7))
    with open(os.path.join(out, "rows.jsonl"), "w") as f:
        for row in rows:
            f.write(json.dumps(row) + "\n")
    model = transformers.AutoModelForCausalLM.from_pretrained(os.path.join(GOLDEN, "methods", "base_llama"), dtype=torch.float32)
    model.eval()
    for c in CASES:
        make_case(c, model, rows, out)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Makes tests/golden/trees/: shared prefixes as transformers and peft compute them with a dense mask.

    python tools/make_tree_fixtures.py [--out DIR]

Needs torch, transformers 5, peft, safetensors. Never run by the build or the tests.

Each folder is a tiny random model (config.json, model.safetensors), a LoRA adapter whose B is away from zero (adapter/), and

    case.json              batches of samples; per batch the rows of the tree and of the samples one by one, its depth, and the loss;
                           off: how far the loss and every gradient move when a part of the mask is left out
    expected.safetensors   grad.<batch>.<name>: raw gradients of each batch

Here a tree is known by its tokens only: a row per different prefix of the samples (without their last tokens, which are only
targets), seeing the rows of its own prefixes. That is a dense 4D mask and explicit position_ids for one forward of batch size 1;
segments, cuts and orders are the business of what is tested. loss = sum over all samples of the losses of their targets / number
of targets; a row that belongs to several samples is asked once per target of each.

transformers computes in float64 here (its norms and softmax stay in float32): in float32 its own gradients are half the tolerance
away from that, which would leave the other half to what is tested.

Refused unless the same loss and gradients come from the whole samples one by one, and unless the loss and each gradient move far
beyond the tolerance without the tree in the mask, with running positions, and, with a sliding window, without the window.
"""

import argparse
import os
import shutil

import make_parity_fixtures as parity  # first: it fixes the hash seed

import torch
import torch.nn.functional as F
import transformers
import peft

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOL = 1e-5  # of the C test: loss relative, gradients by largest difference / largest entry
OFF_FACTOR = 100
SELF_TOL = 2e-6  # two ways to run transformers

CASES = [
    parity.case("llama", "llama", "trees under full attention, two heads per key head", None, rope_parameters=parity.rope(theta=500.0)),
    parity.case("window", "mistral", "trees under a sliding window shorter than the samples", None, sliding_window=6, head_dim=8,
                rope_parameters=parity.rope()),
]
SEEDS = dict(llama=7, window=24)  # with these every loss moves by half a percent and more, whatever is left out


# ---- samples -----------------------------------------------------------------------------------------------------------


def drawn(gen, n):
    return torch.randint(3, parity.VOCAB, (n,), generator=gen).tolist()


def crafted(gen):
    """Everything the shape of a tree can do, once.

        A 9 -+- B 6 -+- D 5 -+- 7 rows            labels from inside B
             |       |       +- one row           labels from the last row of D on
             |       |       `- nothing           ends with a target after D
             |       +- one row                   labels from row 0 on: all of A and B
             |       `- nothing                   its end is B: labels inside A
             +- C 4 -+- 3 rows                    labels in C
             |       `- one row
             +- one row                           a child of one token, straight from the root
             `- as the first, other labels
        alone 8                                   shares nothing
        as the first, but its first token         shares nothing, though all that follows is the same
    """
    a, b, c, d = ([1] + drawn(gen, 8), drawn(gen, 6), drawn(gen, 4), drawn(gen, 5))
    heads = dict(b=b[0], c=c[0], d=d[0])
    others = [t for t in range(3, parity.VOCAB) if t not in heads.values()]
    pick = [others[i] for i in torch.randperm(len(others), generator=gen).tolist()]
    long_tail = [pick[0]] + drawn(gen, 6)
    first = a + b + d + long_tail + [2]
    samples = [
        dict(ids=first, prompt=12),
        dict(ids=a + b + d + [pick[1], 2], prompt=20),
        dict(ids=a + b + d + [2], prompt=19),
        dict(ids=a + b + [pick[2], 2], prompt=1),
        dict(ids=a + b + [2], prompt=5),
        dict(ids=a + c + [pick[3]] + drawn(gen, 2) + [2], prompt=11),
        dict(ids=a + c + [pick[4], 2], prompt=13),
        dict(ids=a + [pick[5], 2], prompt=9),
        dict(ids=list(first), prompt=24),
        dict(ids=[pick[6]] + drawn(gen, 7) + [2], prompt=3),
        dict(ids=[pick[7]] + first[1:], prompt=6),
    ]
    return [samples[i] for i in (5, 0, 9, 2, 7, 3, 10, 1, 6, 8, 4)]  # the tree is not handed over in order


def grown(gen, n=12):
    """Samples that begin as a random part of an earlier one."""
    samples = []
    for i in range(n):
        ids = [1]
        if i > 0:
            other = samples[int(torch.randint(i, (1,), generator=gen))]["ids"]
            ids = other[: int(torch.randint(1, len(other), (1,), generator=gen))]
        ids = ids + drawn(gen, int(torch.randint(1, 7, (1,), generator=gen))) + [2]
        samples.append(dict(ids=ids, prompt=int(torch.randint(1, len(ids), (1,), generator=gen))))
    return samples


# ---- trees -------------------------------------------------------------------------------------------------------------


class Tree:
    """One row per different prefix, in the order in which they are met; parent row or -1."""

    def __init__(self, samples):
        self.ids, self.pos, self.parent, self.labels = [], [], [], []  # labels: (row, target)
        known = {}
        for s in samples:
            row = -1
            for p, token in enumerate(s["ids"][:-1]):
                key = (row, token)
                if key not in known:
                    known[key] = len(self.ids)
                    self.ids.append(token)
                    self.pos.append(p)
                    self.parent.append(row)
                row = known[key]
                if p + 1 >= s["prompt"]:
                    self.labels.append((row, s["ids"][p + 1]))
        self.rows_plain = sum(len(s["ids"]) - 1 for s in samples)

    def depth(self):
        """Runs of rows without a branch from a root to a leaf, at most."""
        children = [0] * len(self.ids)
        for p in self.parent:
            if p >= 0:
                children[p] += 1
        depth = []
        for p in self.parent:
            depth.append(1 if p < 0 else depth[p] + (children[p] > 1))
        return max(depth)

    def mask(self, window, tree=True):
        n = len(self.ids)
        sees = torch.zeros(n, n, dtype=torch.bool)
        for i in range(n):
            j = i
            while j >= 0:
                if window is None or self.pos[i] - self.pos[j] < window:
                    sees[i, j] = True
                j = self.parent[j] if tree else j - 1
        return torch.zeros(1, 1, n, n, dtype=torch.float64).masked_fill_(~sees, torch.finfo(torch.float32).min)


def tree_loss(model, tree, window, see_tree=True, true_positions=True):
    pos = torch.tensor([tree.pos if true_positions else list(range(len(tree.ids)))])
    logits = model(input_ids=torch.tensor([tree.ids]), attention_mask=tree.mask(window, see_tree), position_ids=pos, use_cache=False).logits[0]
    rows = torch.tensor([r for r, _ in tree.labels])
    targets = torch.tensor([t for _, t in tree.labels])
    return F.cross_entropy(logits[rows], targets, reduction="sum") / len(targets)


# ---- a case ------------------------------------------------------------------------------------------------------------


def gradients(model, loss):
    names, params = zip(*[(n, p) for n, p in model.named_parameters() if p.requires_grad])
    assert all("lora_" in n for n in names)
    return {parity.file_name(n): g.double() for n, g in zip(names, torch.autograd.grad(loss, params))}


def far(a, b):
    return float((a - b).abs().max() / b.abs().max())


def make_case(c, out):
    folder = os.path.join(out, c["name"])
    shutil.rmtree(folder, ignore_errors=True)
    gen = torch.Generator().manual_seed(SEEDS[c["name"]])
    parity.write_model(c, folder, gen)
    adapter = os.path.join(folder, "adapter")
    parity.add_lora(parity.load(folder), adapter, c["lora"], gen, c["name"])
    model = parity.load(folder, adapter=adapter).double()
    window = getattr(model.config, "sliding_window", None)
    info = dict(what=c["what"], method="lora", transformers=transformers.__version__, peft=peft.__version__, torch=torch.__version__,
                trees=[], batches=[])
    tensors = {}
    for k, samples in enumerate((crafted(gen), grown(gen))):
        tree = Tree(samples)
        loss = tree_loss(model, tree, window)
        grads = gradients(model, loss)
        # the same without a tree
        plain = parity.step_loss(model, samples, True)
        d_loss = far(loss, plain)
        d_grad = max(far(grads[n], g) for n, g in gradients(model, plain).items())
        assert d_loss < SELF_TOL and d_grad < SELF_TOL, (c["name"], d_loss, d_grad)
        ways = dict(tree=dict(see_tree=False), positions=dict(true_positions=False))
        if window is not None:
            assert max(tree.pos) > 2 * window
            ways["window"] = dict(window=None)
        off = {}
        for way, how in ways.items():
            other = tree_loss(model, tree, **dict(dict(window=window), **how))
            moved = [far(g, grads[n]) for n, g in gradients(model, other).items()]
            off[way] = dict(loss=far(other, loss), gradient=min(moved))
            assert min(off[way].values()) > OFF_FACTOR * TOL, (c["name"], way, off)
        assert tree.depth() >= 3 and len(tree.ids) < tree.rows_plain
        info["trees"].append(dict(rows=len(tree.ids), rows_plain=tree.rows_plain, depth=tree.depth(), labels=len(tree.labels),
                                  loss=float(loss), off=off))
        info["batches"].append(samples)
        tensors.update({f"grad.{k}.{n}": g for n, g in grads.items()})
        print(f"{c['name']} {k}: {len(tree.ids)} rows of {tree.rows_plain}, depth {tree.depth()}, {len(tree.labels)} labels; "
              f"whole samples: loss {d_loss:.1e} gradient {d_grad:.1e}; off {off}")
    parity.save_case(folder, info, tensors)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--out", default=os.path.join(ROOT, "tests/golden/trees"))
    out = ap.parse_args().out
    os.makedirs(out, exist_ok=True)
    for c in CASES:
        make_case(c, out)


if __name__ == "__main__":
    main()

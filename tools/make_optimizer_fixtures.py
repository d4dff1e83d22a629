#!/usr/bin/env python3
"""Makes tests/golden/optimizer/adamw.json: torch.optim.AdamW with clip_grad_norm_, a decay and a no-decay group, and a
group with its own learning rate, in float32. Needs torch. Run from the root."""
import json

import torch


def case(max_norm, wd, steps, scale):
    g = torch.Generator().manual_seed(3)
    shapes = {"a.weight": (3, 5), "b.bias": (7,), "c.weight": (4, 4), "d.lora_B.weight": (6, 2)}
    ps = {n: torch.nn.Parameter(torch.randn(s, generator=g)) for n, s in shapes.items()}
    start = {n: p.detach().flatten().tolist() for n, p in ps.items()}
    groups = [{"params": [ps["a.weight"], ps["c.weight"]], "weight_decay": wd},
              {"params": [ps["b.bias"]], "weight_decay": 0.0},
              {"params": [ps["d.lora_B.weight"]], "weight_decay": wd}]
    opt = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.999), eps=1e-8)
    out = []
    for k in range(steps):
        lr = 1e-2 * (k + 1) / steps
        for i, grp in enumerate(opt.param_groups):
            grp["lr"] = lr * (16 if i == 2 else 1)
        grads = {}
        for n, p in ps.items():
            p.grad = torch.randn(p.shape, generator=g) * scale
            grads[n] = p.grad.flatten().tolist()
        norm = torch.nn.utils.clip_grad_norm_(ps.values(), max_norm) if max_norm > 0 else \
            torch.nn.utils.get_total_norm([p.grad for p in ps.values()])
        opt.step()
        out.append({"lr": lr, "grads": grads, "norm": norm.item(),
                    "weights": {n: p.detach().flatten().tolist() for n, p in ps.items()}})
    return {"max_norm": max_norm, "weight_decay": wd, "shapes": shapes, "start": start, "steps": out}


def main():
    cases = [case(1.0, 0.1, 6, 1.0), case(1.0, 0.0, 4, 0.01), case(0.0, 0.1, 4, 5.0)]
    with open("tests/golden/optimizer/adamw.json", "w", encoding="utf-8") as f:
        json.dump({"torch": torch.__version__, "cases": cases}, f, separators=(",", ":"))
        f.write("\n")


if __name__ == "__main__":
    main()

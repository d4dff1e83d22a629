#!/usr/bin/env python3
"""Makes tests/golden/schedule/schedules.json: the learning rate of every optimizer step as transformers' get_scheduler
gives it, for every lr_scheduler_type and its arguments. Needs torch and transformers. Run from the root."""
import json
import math
import random
import warnings

import torch
import transformers
from transformers.optimization import get_scheduler

warnings.simplefilter("ignore")


def optimizer(lr):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def closed(name, lr, total, warmup, **args):
    opt = optimizer(lr)
    sched = get_scheduler(name, opt, num_warmup_steps=warmup, num_training_steps=total, scheduler_specific_kwargs=args)
    rates = []
    for _ in range(total + 3):  # beyond the end too: a resumed run may be prolonged
        rates.append(opt.param_groups[0]["lr"])
        opt.step()
        sched.step()
    return {"type": name, "lr": lr, "total": total, "warmup": warmup, "args": args, "rates": rates}


def adaptive(name, lr, metrics, **args):
    opt = optimizer(lr)
    sched = get_scheduler(name, opt, scheduler_specific_kwargs=args)
    rates = [opt.param_groups[0]["lr"]]
    for m in metrics:
        sched.step(m)
        rates.append(opt.param_groups[0]["lr"])
    return {"type": name, "lr": lr, "args": args, "metrics": metrics, "rates": rates}


def main():
    cases = []
    for lr, total, warmup in [(2e-4, 50, 5), (5e-5, 37, 0), (1.0, 10, 10), (3e-4, 7, 1), (1e-3, 40, 60)]:
        for name in ["linear", "cosine", "cosine_with_restarts", "constant", "constant_with_warmup", "inverse_sqrt"]:
            cases.append(closed(name, lr, total, warmup))
        cases += [closed("cosine", lr, total, warmup, num_cycles=c) for c in (1.0, 0.3, 2.5)]
        cases += [closed("cosine_with_restarts", lr, total, warmup, num_cycles=c) for c in (2, 3, 7)]
        cases.append(closed("inverse_sqrt", lr, total, warmup, timescale=17))
        if total > warmup:
            cases += [closed("polynomial", lr, total, warmup),
                      closed("polynomial", lr, total, warmup, lr_end=1e-6, power=2.0),
                      closed("polynomial", lr, total, warmup, lr_end=0.0, power=0.5)]
        for kind in ["cosine_with_min_lr", "cosine_warmup_with_min_lr"]:
            cases += [closed(kind, lr, total, warmup, min_lr=1e-5), closed(kind, lr, total, warmup, min_lr_rate=0.1),
                      closed(kind, lr, total, warmup, min_lr_rate=0.2, num_cycles=1.5)]
        cases.append(closed("cosine_warmup_with_min_lr", lr, total, warmup, min_lr_rate=0.1, warmup_lr_rate=0.01))
        for wt in ["linear", "cosine", "1-sqrt"]:
            for dt in ["linear", "cosine", "1-sqrt"]:
                cases.append(closed("warmup_stable_decay", lr, total, warmup, num_decay_steps=6, warmup_type=wt,
                                    decay_type=dt, min_lr_ratio=0.05))
        cases += [closed("warmup_stable_decay", lr, total, warmup, num_decay_steps=10),
                  closed("warmup_stable_decay", lr, total, warmup, num_decay_steps=3, num_stable_steps=2),
                  closed("warmup_stable_decay", lr, total, warmup, num_decay_steps=9, num_cycles=1.0)]

    rng = random.Random(7)
    falling = [3 * math.exp(-0.05 * i) + rng.uniform(-0.2, 0.2) for i in range(60)]
    stuck = [1.0 + 1e-5 * rng.random() for _ in range(60)]
    rising = [-x for x in falling]
    broken = [1.0, math.inf, 0.5, 0.4, 0.6, 0.7, 0.3] + stuck[:20]
    for metrics in (falling, stuck, rising, broken):
        for mode in ("min", "max"):
            for extra in ({}, {"patience": 2}, {"patience": 0, "factor": 0.5, "cooldown": 3},
                          {"patience": 1, "threshold": 0.1, "threshold_mode": "abs", "min_lr": 1e-5},
                          {"patience": 1, "factor": 0.3, "eps": 1e-5}):
                cases.append(adaptive("reduce_lr_on_plateau", 2e-4, metrics, mode=mode, **extra))
            for extra in ({}, {"patience": 1, "min_lr": 1e-5, "max_lr": 1e-3},
                          {"patience": 0, "factor": 0.7, "min_lr": 1e-4, "reset_start": 3, "cooldown": 1, "warmup": 2},
                          {"patience": 1, "min_lr": 1e-6, "smooth": True, "window_size": 4, "factor": 0.8},
                          {"patience": 0, "min_lr": 1e-4, "smooth": True, "window_size": 3, "reset_start": 2, "factor": 0.5},
                          {"patience": 1, "threshold": 0.01, "threshold_mode": "rel", "min_lr": 1e-6}):
                cases.append(adaptive("greedy", 2e-4, metrics, mode=mode, **extra))

    args = transformers.TrainingArguments
    warmups = []
    for total in (1, 3, 10, 30, 33, 97, 1000, 12345):
        for w in (0, 0.03, 0.1, 0.06, 0.5, 0.999, 1, 7, 100):
            fake = type("A", (), {"warmup_steps": w})()
            warmups.append([total, w, args.get_warmup_steps(fake, total)])
    for c in cases:
        c["metrics"] = ["inf" if m == math.inf else m for m in c.get("metrics", [])]
    with open("tests/golden/schedule/schedules.json", "w", encoding="utf-8") as f:
        head = {"transformers": transformers.__version__, "torch": torch.__version__, "warmups": warmups}
        f.write("{" + json.dumps(head)[1:-1] + ',\n"cases": [\n')
        f.write(",\n".join(json.dumps(c, separators=(",", ":")) for c in cases))
        f.write("\n]}\n")


if __name__ == "__main__":
    main()

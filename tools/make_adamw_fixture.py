"""Makes tests/golden/optim/adamw.txt: ten steps of torch.optim.AdamW, numbers as hexadecimal floats.

Run with any Python that has torch: python tools/make_adamw_fixture.py
"""
import pathlib
import struct

import torch

N, STEPS = 37, 10
LR, BETAS, EPS, DECAY = 3e-3, (0.9, 0.98), 1e-8, 0.05


def row(name, t):
    return name + " " + " ".join(float(x).hex() for x in t.detach().tolist()) + "\n"


torch.manual_seed(3)
p = torch.nn.Parameter(torch.randn(N))
opt = torch.optim.AdamW([p], lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY, foreach=False, fused=False)
out = "# torch %s AdamW(lr=%g, betas=%s, eps=%g, weight_decay=%g), learning rate halved after step 5\n" % (
    torch.__version__, LR, BETAS, EPS, DECAY)
out += row("start", p)
for step in range(1, STEPS + 1):
    if step == 6:
        opt.param_groups[0]["lr"] = LR / 2
    # from huge to tiny, zeros among them
    p.grad = torch.randn(N) * torch.logspace(-12, 3, N)
    p.grad[step % N] = 0
    out += row("grad", p.grad)
    opt.step()
state = opt.state[p]
out += row("p", p) + row("m", state["exp_avg"]) + row("v", state["exp_avg_sq"])
path = pathlib.Path(__file__).parent.parent / "tests/golden/optim/adamw.txt"
path.parent.mkdir(parents=True, exist_ok=True)
path.write_text(out)

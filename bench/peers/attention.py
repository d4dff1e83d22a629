#!/usr/bin/env python3
"""Attention, forward and backward, beside torch's scaled_dot_product_attention: one table for this machine.

Ours is the best of a second of runs of `test_attention_ops --bench` (f32, what this processor has), torch's the best of
as long, in f32 and bf16, with grouped heads as it takes them (enable_gqa) and with repeated ones, the faster counts.
The two sides take turns.

    PEER_PYTHON bench/peers/attention.py [--threads N] [--seconds S]
"""
import argparse
import os
import re
import subprocess
import time

import torch
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
OURS = os.path.join(HERE, "../../build/release/tests/test_attention_ops")
# name of the case in tests/ops/attention/attention_cases.h: samples, tokens, heads, key heads, head size, causal
CASES = {
    "bench_512_9x3x64": (1, 512, 9, 3, 64, True),
    "bench_2048_9x3x64": (1, 2048, 9, 3, 64, True),
    "bench_32x32_9x3x64": (32, 32, 9, 3, 64, True),
    "bench_512_bidirectional_12x64": (1, 512, 12, 12, 64, False),
    "bench_2048_14x2x64": (1, 2048, 14, 2, 64, True),
    "bench_2048_8x8x128": (1, 2048, 8, 8, 128, True),
}


def ours(case, threads):
    """Milliseconds of the forward and the backward pass, in the widest instruction set (the first line of each)."""
    text = subprocess.run([OURS, "--bench", case, "--threads", str(threads)], check=True, capture_output=True, text=True).stdout
    found = {}
    for op, ms in re.findall(r"^attention/\S+\s+(attention(?:_grad)?)\s.*?([\d.]+) ms", text, re.M):
        found.setdefault(op, float(ms))
    return found["attention"], found["attention_grad"]


def torchs(samples, tokens, heads, key_heads, size, causal, dtype, repeat, seconds):
    make = lambda h, grad=True: torch.randn(samples, h, tokens, size, dtype=dtype, requires_grad=grad)
    q, k, v, upstream = make(heads), make(key_heads), make(key_heads), make(heads, False)
    best = [float("inf"), float("inf")]
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or best[1] == float("inf"):
        a = time.perf_counter()
        if repeat:
            n = heads // key_heads
            out = F.scaled_dot_product_attention(q, k.repeat_interleave(n, 1), v.repeat_interleave(n, 1), is_causal=causal)
        else:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)
        b = time.perf_counter()
        out.backward(upstream)
        c = time.perf_counter()
        q.grad = k.grad = v.grad = None
        best = [min(best[0], 1e3 * (b - a)), min(best[1], 1e3 * (c - b))]
    return best


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--seconds", type=float, default=1)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    with open("/proc/cpuinfo") as f:
        cpu = re.search(r"model name\s*: (.*)", f.read()).group(1)
    print(f"{cpu}, {a.threads} thread(s), torch {torch.__version__}; milliseconds, forward + backward\n")
    print("| samples x tokens, heads x key heads x size | ours, f32 | torch, f32 | torch, bf16 | ratio, best |\n|---|--:|--:|--:|--:|")
    for name, shape in CASES.items():
        mine = ours(name, a.threads)
        theirs = {}
        for dtype in (torch.float32, torch.bfloat16):
            ways = [torchs(*shape, dtype, repeat, a.seconds) for repeat in (False, True)]
            theirs[dtype] = min(ways, key=sum)
        mine = min(mine, ours(name, a.threads), key=sum)
        best = min(sum(t) for t in theirs.values())
        samples, tokens, heads, key_heads, size, causal = shape
        row = [f"{t[0]:.2f} + {t[1]:.2f}" for t in (mine, theirs[torch.float32], theirs[torch.bfloat16])]
        print(f"| {samples} x {tokens}{'' if causal else ', both ways'}, {heads} x {key_heads} x {size} | " + " | ".join(row) +
              f" | {best / sum(mine):.1f} |", flush=True)


if __name__ == "__main__":
    main()

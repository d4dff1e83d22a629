"""docs/benchmarks.md from the measurements that peers.py has kept."""
import statistics


def gb(n):
    return f"{n / 1e9:.2f}"


def median(results, prefix, field):
    values = [r[field] for k, r in results.items() if k.startswith(prefix) and r.get(field) is not None]
    return statistics.median(values) if values else None


def table(out, head, rows):
    out.append("| " + " | ".join(head) + " |")
    out.append("|" + "---|" * len(head))
    out.extend("| " + " | ".join(str(c) for c in row) + " |" for row in rows)
    out.append("")


def rate_rows(results, prefix):
    """Ours and the peer's of one group, ours first, measurements that were repeated as their median."""
    groups = {}
    for key in results:
        if not key.startswith(prefix + "/"):
            continue
        name = key[len(prefix) + 1 :]
        if name.rsplit("/", 1)[-1].isdigit():
            name = name.rsplit("/", 1)[0]
        groups.setdefault(name, []).append(results[key])
    rows = []
    for name in sorted(groups, key=lambda n: (not n.startswith("ours"), n)):
        m = lambda f: statistics.median(r[f] for r in groups[name])
        rows.append((name, f"{m('real'):.0f}", f"{m('labels'):.0f}", f"{m('padded'):.0f}", gb(m("rss")), gb(m("anon")),
                     f"{m('startup'):.1f}", len(groups[name])))
    return rows


HEAD = ("who", "real tokens/s", "label tokens/s", "padded tokens/s", "peak RSS, GB", "peak anonymous, GB", "start-up, s", "runs")


class Targets:
    def __init__(self):
        self.rows = []

    def add(self, what, value, bound, at_least=True, shown="{:.2f}"):
        if value is None:
            self.rows.append((what, "not measured", "", ""))
            return
        ok = value >= bound if at_least else value <= bound
        self.rows.append((what, shown.format(value), ("≥ " if at_least else "≤ ") + shown.format(bound), "met" if ok else "**missed**"))


def ratio(a, b):
    return a / b if a and b else None


def best(results, prefix, field="real"):
    values = [r for k, r in results.items() if k.startswith(prefix) and r.get(field)]
    return max(values, key=lambda r: r[field]) if values else None


def gate(out, r):
    ours, peer = r.get("gate/ours/f32"), r.get("gate/peer/f32")
    if not ours or not peer:
        return
    worst = max(abs(a / b - 1) for a, b in zip(ours["loss"], peer["loss"]))
    norm = max(abs(a / b - 1) for a, b in zip(ours["grad_norm"], peer["grad_norm"]))
    out.append(f"Gate: over the first {len(ours['loss'])} steps from the same adapter in f32 the losses differ by at most "
               f"{worst:.1e} (relative; allowed 1e-4) and the gradient norms by at most {norm:.1e} (allowed 1e-2): "
               f"{'the same run' if worst <= 1e-4 and norm <= 1e-2 else '**NOT the same run: all rows below are void**'}.")
    for compute in ("bf16", "int8"):
        low = r.get(f"gate/ours/{compute}")
        if low:
            norm = max(abs(a / b - 1) for a, b in zip(low["grad_norm"], ours["grad_norm"]))
            loss = max(abs(a / b - 1) for a, b in zip(low["loss"], ours["loss"]))
            out.append(f"{compute} beside f32 there: losses within {loss:.1e}, gradient norms within {norm:.1e}.")
    out.append("What the narrow types do to training is measured by `bench/gate.sh` (below).\n")


def startup(results, who):
    values = [r["startup"] for k, r in results.items() if f"/{who}/" in k and r.get("startup") is not None and "gate" not in k]
    return statistics.median(values) if values else None


def write(r, path):
    m = r["machine"]
    peer_versions = next((v["versions"] for v in r.values() if isinstance(v, dict) and "versions" in v), {})
    out = ["# Benchmarks", ""]
    out += ["Every table comes from one command; figures of two programs stand beside each other only when they were taken in one run "
            "on one machine. What counts is the ratio.", ""]
    out += [f"`PEER_PYTHON=venv/bin/python bench/peers/peers.py --data DATA` on {m['date']}: {m['cpu']}, {m['threads']} threads, one "
            f"core's multiply-add peak {m['peak_core']:.0f} GFLOP/s in f32; torch {peer_versions.get('torch', '?')}, transformers "
            f"{peer_versions.get('transformers', '?')}, peft 0.21; ours at {m['revision']}. The peer is transformers + peft + Trainer with "
            "the same token ids, the same start (LoRA r = 16 on every linear layer, A and B random), AdamW, clipping at 1, a constant rate; "
            "bf16 is its weights in bf16 with autocast. Models have the shapes named and random weights. Real tokens are those of the "
            "samples, padded ones what the peer computes, label tokens those that are learned. Rates leave out the first step. "
            "Start-up is the time to the end of step 1 less one steady step.", ""]
    gate(out, r)
    t = Targets()
    p135, b1 = "135M/fixed512/b8", "135M/fixed512/b1"
    peer_f32 = median(r, p135 + "/peer/f32/sdpa", "real")
    t.add("135M, 512 fixed: f32 beside the peer's f32, real tokens/s", ratio(median(r, p135 + "/ours/f32/", "real"), peer_f32), 2.0)
    t.add("0.5B, 512 fixed: f32 beside f32", ratio(median(r, "0.5B/fixed512/b2/ours/f32", "real"),
                                                   median(r, "0.5B/fixed512/b2/peer/f32", "real")), 2.0)
    t.add("135M: bf16 beside the peer's bf16 (batch 8)", ratio(median(r, p135 + "/ours/bf16", "real"),
                                                               median(r, p135 + "/peer/bf16/sdpa", "real")), 1.7)
    t.add("0.5B: bf16 beside bf16", ratio(median(r, "0.5B/fixed512/b2/ours/bf16", "real"),
                                          median(r, "0.5B/fixed512/b2/peer/bf16", "real")), 1.7)
    peer_best = max((x["real"] for k, x in r.items() if k.startswith("135M/fixed512/") and "/peer/" in k), default=None)
    t.add("135M: our best beside the peer's best of its grid", ratio(median(r, p135 + "/ours/int8", "real"), peer_best), 2.5)
    t.add("135M, in turn: ours int8 beside the peer's bf16 at batch 1", ratio(median(r, "135M/abba/ours", "real"),
                                                                              median(r, "135M/abba/peer", "real")), 2.5)
    for kind, bound in (("gsm8k", 3.0), ("alpaca", 5.0)):
        ours, peer = best(r, f"135M/{kind}/b8/ours/", "labels"), best(r, f"135M/{kind}/b8/peer/", "labels")
        t.add(f"135M, {kind}: label tokens/s, our best beside the peer's best", ratio(ours and ours["labels"], peer and peer["labels"]), bound)
    t.add("135M: int8 beside our own f32", ratio(median(r, p135 + "/ours/int8/", "real"), median(r, p135 + "/ours/f32/", "real")), 2.0)
    t.add("0.5B: int8 beside our own f32", ratio(median(r, "0.5B/fixed512/b2/ours/int8", "real"),
                                                 median(r, "0.5B/fixed512/b2/ours/f32", "real")), 2.0)
    t.add("shared prompts (48 + 13 tokens, 8 answers): rate of tokens beside our own unshared",
          ratio(median(r, "shared/always", "real"), median(r, "shared/never", "real")), 2.8)
    t.add("nothing to share: automatic beside never", ratio(median(r, "unshared/auto", "real"), median(r, "unshared/never", "real")), 0.98)
    fastest = best(r, p135 + "/peer/")
    t.add("135M: peak RSS beside the peer's fastest point with as many tokens per step",
          ratio(median(r, p135 + "/ours/int8/", "rss"), fastest and fastest["rss"]), 0.2, at_least=False)
    fastest = best(r, "0.5B/fixed512/b2/peer/")
    t.add("0.5B: the same", ratio(median(r, "0.5B/fixed512/b2/ours/int8", "rss"), fastest and fastest["rss"]), 0.3, at_least=False)
    t.add("0.5B, 512 tokens, bf16 weights mapped: anonymous memory, GB",
          (lambda x: x / 1e9 if x else None)(median(r, "0.5B/fixed512/b1/ours/f32", "anon")), 1.0, at_least=False)
    t.add("start-up beside the peer's", ratio(startup(r, "ours"), startup(r, "peer")), 0.05, at_least=False, shown="{:.3f}")
    t.add("1,000 short samples, start to saved adapter: the peer's time beside ours",
          ratio(r.get("short/peer/bf16", {}).get("wall"), r.get("short/ours/int8", {}).get("wall")), 2.5)
    out += ["## Targets", ""]
    table(out, ("what", "measured", "target", ""), t.rows)
    for title, prefix in (("135M, 512 tokens each, batch 8", p135), ("135M, 512 tokens each, batch 1", b1),
                          ("135M, GSM8K, batch 8", "135M/gsm8k/b8"), ("135M, Alpaca, batch 8", "135M/alpaca/b8"),
                          ("0.5B, 512 tokens each, batch 2", "0.5B/fixed512/b2"), ("1.1B, 512 tokens, batch 1", "1.1B/fixed512/b1"),
                          ("1,000 short samples (12 to 36 tokens), batch 8", "short")):
        rows = rate_rows(r, prefix)
        if rows:
            out += [f"## {title}", ""]
            table(out, HEAD, rows)
    rows = [(k, f"{v['planned'] / 2**20:.0f}", f"{v['above_start'] / 2**20:.0f}", f"{100 * (v['above_start'] / v['planned'] - 1):+.1f} %")
            for k, v in sorted(r.items()) if isinstance(v, dict) and v.get("planned") and not k.startswith(("gate", "scaling"))]
    if rows:
        out += ["## Memory: planned before the start, measured", ""]
        table(out, ("run", "planned, MiB", "measured, MiB", "apart"), rows)
    rows = [(k.split("/", 1)[1], f"{v['real']:.0f}", gb(v["anon"])) for k, v in r.items() if k.startswith("scaling/")]
    if rows:
        out += ["## Scaling: 135M in f32", ""]
        table(out, ("micro-batch rows (T) or threads", "tokens/s", "anonymous, GB"), rows)
    out += ["## Dense products of this machine", "", "`bench_gemm_bench --rows 1024 --threads N`, 10^9 operations a second:", "", "```", m["gemm"].strip(), "```", ""]
    extra = path.parent / "benchmarks-more.md"
    if extra.exists():
        out += [extra.read_text().rstrip(), ""]
    path.write_text("\n".join(out))
    print(f"{path} is written")

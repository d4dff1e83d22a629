"""Results as docs/benchmarks.md: tables, what was aimed at and whether it was reached."""
import json
import statistics

import runs

GIB, MIB = 2 ** 30, 2 ** 20


def ok(rows, name):
    return [r for r in rows.get(name, {}).get("runs", []) if "failed" not in r]


def contestants(row):
    """What ran, in order of appearance, each with its runs."""
    out = []
    for run in row["runs"]:
        for what, list_ in out:
            if what == run["what"]:
                list_.append(run)
                break
        else:
            out.append((run["what"], [run]))
    return [(what, [r for r in list_ if "failed" not in r], list_) for what, list_ in out]


def summary(row, list_):
    """Medians and sums over the runs of one contestant."""
    tokens, n = row["tokens"], min(len(r["seconds"]) for r in list_)
    steady = [s for r in list_ for s in runs.steady(r)]
    counted = [t for r in list_ for t in tokens[:len(r["seconds"])][1:]] or tokens[:n]
    flops = [f for r in list_ for f in row["flops"][:len(r["seconds"])][1:]] or row["flops"][:n]
    each = [runs.rates(r, tokens)[0] for r in list_]
    total = sum(steady)
    return {"label": sum(t[1] for t in counted) / total, "real": sum(t[0] for t in counted) / total,
            "padded": sum(t[2] for t in counted) / total, "flops": sum(flops) / total, "range": (min(each), max(each)),
            "step": statistics.median(steady), "startup": statistics.median(runs.startup(r) for r in list_),
            "wall": statistics.median(r["wall"] for r in list_), "rss": max(r["peak_rss"] for r in list_),
            "anon": max(r["peak_anon"] for r in list_)}


def name_of(what, list_=()):
    if what["side"] == "peer":
        return f"peer, {what['dtype']}, {what['attention']}" + (", checkpointing" if what["checkpointing"] else "")
    used = {r["compute"] for r in list_ if "compute" in r}
    text = "ours, " + what.get("compute", "f32")
    if what.get("compute") == "auto" and len(used) == 1:
        text += f" ({used.pop()})"
    return text + {"never": ", nothing shared", "auto": ", shared where it pays"}.get(what.get("share"), "")


def table(heads, rows):
    """rows of texts; columns after the first are right-aligned."""
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "--:|" * (len(heads) - 1)]
    return lines + ["| " + " | ".join(r) + " |" for r in rows] + [""]


def gib(b):
    return f"{b / GIB:.2f}"


def peak_of(rows, kind):
    """Measured GFLOP/s of the best dense product in this type."""
    gemm = rows.get("machine", {}).get("gemm", {}).get("best", {}).get("columns", {})
    kind = {"amp": "bf16"}.get(kind, kind)
    if kind in gemm:
        return gemm[kind]
    return max((v for k, v in gemm.items() if k not in ("bf16", "int8")), default=0)


def comparison(name, row, rows):
    spec = row["spec"]
    out = [f"### {name}", "",
           f"{spec['shape']}, rows `{spec['rows']}`, {spec['batch']} samples a step, {spec['steps']} steps of which the first "
           f"is not counted; {row['tokens'][0][0] if len({t[0] for t in row['tokens']}) == 1 else 'various'} real tokens a step"
           + (", each contestant there and back" if len(row["runs"]) > len(row["who"]) else "") + ".", ""]
    lines = []
    for what, good, all_ in contestants(row):
        if not good:
            lines.append([name_of(what), all_[0]["failed"]] + [""] * 9)
            continue
        s = summary(row, good)
        kind = what.get("dtype") or good[0].get("compute", "f32")
        peak = peak_of(rows, kind)
        low, high = s["range"]
        lines.append([name_of(what, good), f"{s['label']:.0f}", f"**{s['real']:.0f}**" +
                      (f" ({low:.0f} to {high:.0f})" if len(good) > 1 else ""), f"{s['padded']:.0f}",
                      f"{s['flops'] * 1e-9:.0f}", f"{100e-9 * s['flops'] / peak:.0f} %" if peak else "", f"{s['step']:.2f}",
                      f"{s['startup']:.1f}", f"{s['wall']:.1f}", gib(s["rss"]), gib(s["anon"])])
    out += table(["", "label tokens/s", "real tokens/s", "padded tokens/s", "useful GFLOP/s", "of measured peak", "s/step",
                  "start-up, s", "whole process, s", "peak RSS, GiB", "peak anonymous, GiB"], lines)
    return out + [f"`{row['command']}`", ""]


def find(rows, name, **want):
    """The summary of the contestant of a row with these properties."""
    row = rows.get(name)
    for what, good, _ in contestants(row) if row else []:
        if good and all(what.get(k) == v or (k == "compute" and good[0].get("compute") == v and what["side"] == "ours")
                        for k, v in want.items()):
            return summary(row, good)
    return None


def best(rows, name, side, key="real"):
    row = rows.get(name)
    all_ = [summary(row, good) for what, good, _ in contestants(row) if good and what["side"] == side] if row else []
    return max(all_, key=lambda s: s[key], default=None)


def targets(rows):
    """Text, measured, met."""
    out = []

    def ratio(text, a, b, key, limit, above=True):
        if a is None or b is None:
            return
        r = a[key] / b[key]
        out.append([text, f"{'≥' if above else '≤'} {limit:g}", f"{r:.2f}" if r >= 0.1 else f"{r:.3f}",
                    "yes" if (r >= limit if above else r <= limit) else "**no**"])

    for shape in ("135m", "0.5b"):
        row = f"fixed512-{shape}"
        ratio(f"{row}: f32 ÷ peer's f32, real tokens/s", find(rows, row, side="ours", compute="f32"),
              find(rows, row, side="peer", dtype="f32"), "real", 2.0)
        ratio(f"{row}: bf16 ÷ peer's bf16, real tokens/s", find(rows, row, side="ours", compute="bf16"),
              find(rows, row, side="peer", dtype="bf16"), "real", 1.7)
        ratio(f"{row}: our best ÷ peer's best, real tokens/s", best(rows, row, "ours"), best(rows, row, "peer"), "real", 2.5)
        ratio(f"{row}: int8 ÷ our f32", find(rows, row, side="ours", compute="int8"),
              find(rows, row, side="ours", compute="f32"), "real", 2.0)
    ratio("gsm8k-135m: our best ÷ peer's best, label tokens/s", best(rows, "gsm8k-135m", "ours", "label"),
          best(rows, "gsm8k-135m", "peer", "label"), "label", 3.0)
    ratio("alpaca-135m: our best ÷ peer's best, label tokens/s", best(rows, "alpaca-135m", "ours", "label"),
          best(rows, "alpaca-135m", "peer", "label"), "label", 5.0)
    for row, text in (("shared-135m", "8 answers of 13 tokens to a prompt of 48"), ("shared5to1-135m", "8 of 64 to one of 320")):
        ratio(f"{row}: shared ÷ unshared, {text}", find(rows, row, share="auto"), find(rows, row, share="never"), "real", 2.8)
    ratio("unshared-135m: sharing allowed ÷ forbidden, nothing shared", find(rows, "unshared-135m", share="auto"),
          find(rows, "unshared-135m", share="never"), "real", 0.98)
    for shape, limit in (("135m", 0.2), ("0.5b", 0.3)):
        row = f"fixed512-{shape}"
        for who, mine in (("our f32", find(rows, row, side="ours", compute="f32")), ("our fastest", best(rows, row, "ours"))):
            ratio(f"{row}: peak RSS, {who} ÷ peer's fastest", mine, best(rows, row, "peer"), "rss", limit, above=False)
    ratio("batch1-135m: start-up, ours ÷ peer's", find(rows, "batch1-135m", side="ours", compute="f32"),
          best(rows, "batch1-135m", "peer"), "startup", 0.05, above=False)
    a, b = best(rows, "short1000-135m", "ours"), best(rows, "short1000-135m", "peer")
    if a and b:
        ratio("short1000-135m: start to saved adapter, peer's ÷ ours", b, a, "wall", 2.5)
    small = [r for r in ok(rows, "memory") if r["what"]["shape"] == "qwen2.5-0.5b" and r["what"]["batch"] == 1]
    if small:
        out.append(["0.5B, 512 tokens, bf16 weights mapped: anonymous memory, GiB", "< 1", gib(small[0]["peak_anon"]),
                    "yes" if small[0]["peak_anon"] < GIB else "**no**"])
    plans = [abs(r["planned"] / r["above_start"] - 1) for r in ok(rows, "memory")]
    if plans:
        out.append([f"planned memory, largest deviation of {len(plans)} configurations", "≤ 3 %", f"{100 * max(plans):.1f} %",
                    "yes" if max(plans) <= 0.03 else "**no**"])
    return out


def parity(rows):
    lines = []
    for name, row in rows.items():
        if "who" not in row or name.startswith("grid"):
            continue
        good = {json.dumps(w, sort_keys=True): g[0] for w, g, _ in contestants(row) if g}
        f32 = [r for r in good.values() if (r["what"].get("dtype") or r["what"].get("compute")) == "f32"]
        ref = next((r for r in f32 if r["side"] == "peer"), None) or next(iter(f32), None)
        for r in good.values():
            if ref is None or r is ref:
                continue
            n = min(len(r["losses"]), len(ref["losses"]), 20)
            loss = max(abs(r["losses"][i] / ref["losses"][i] - 1) for i in range(n))
            norm = max(abs(r["grad_norms"][i] / ref["grad_norms"][i] - 1) for i in range(n))
            exact = r["what"].get("compute", r["what"].get("dtype")) == "f32"
            alive = all(g > 0 for g in r["grad_norms"])
            held = alive and (loss <= 1e-4 and norm <= 0.01 if exact else loss <= 2e-2 and norm <= 0.05)
            lines.append([name, name_of(r["what"], [r]), name_of(ref["what"], [ref]), str(n), f"{loss:.1e}", f"{100 * norm:.3f} %",
                          "held" if held else "**not held: the row is void**"])
    return lines


def scaling(row):
    out = []
    kinds = {}
    for r in row["runs"]:
        kinds.setdefault(r["what"]["varied"], []).append(r)
    key = {"rows of a micro-batch": "budget", "sequence length": "length", "rank": "rank", "threads": "threads"}
    for varied, list_ in kinds.items():
        good = [r for r in list_ if "failed" not in r]
        if not good:
            continue
        base = good[0]
        lines = []
        for r in good:
            w, t = r["what"], statistics.median(runs.steady(r))
            n = w["length"] * w["batch"]
            lines.append([str(w[key[varied]]), str(n), f"{t:.2f}", f"{n / t:.0f}", f"{r['flops'] / n * 1e-9:.3f}",
                          f"{r['flops'] / t * 1e-9:.0f}",
                          f"{(r['flops'] / t) / (base['flops'] / statistics.median(runs.steady(base))):.2f}", gib(r["peak_anon"])])
        out += table([varied, "tokens", "s/step", "tokens/s", "GFLOP/token (formula)", "useful GFLOP/s", "to the first line",
                      "peak anonymous, GiB"], lines)
    return out + [f"`{row['command']}`", ""]


def methods(row):
    lines = []
    for pair in row["pairs"]:
        ours, lora = pair["method"], pair.get("lora", {})
        if "failed" in ours or "failed" in lora or not lora:
            lines.append([pair["name"], "", "", "", "", "", ours.get("failed", "")[:60]])
            continue
        t, l = (statistics.median(runs.steady(r)) for r in (ours, lora))
        n = ours["tokens"] / ours["steps"]
        lines.append([pair["name"], f"{ours['trained']:,}", str(pair["rank"]), f"{n / t:.0f}", f"{t / l:.2f}",
                      gib(ours["peak_anon"]), gib(lora["peak_anon"])])
    return table(["method", "trained numbers", "LoRA's rank", "tokens/s", "step ÷ LoRA's step", "peak anonymous, GiB",
                  "LoRA's"], lines) + [f"`{row['command']}`", ""]


def page(results):
    rows = results["rows"]
    versions = ", ".join(f"{k} {v}" for k, v in results["peer_versions"].items()) or "not installed"
    out = ["# Benchmarks", "",
           "This page is written by `bench/peers/peers.py` from its results; "
           "[internals/bench.md](internals/bench.md) says how things are measured, what the gates are and how to run it on "
           "another machine. Ratios of one session are what counts; absolute figures belong to this machine.", "",
           f"CPU: {results['cpu']}, {results['cores']} cores, {results['threads']} threads on both sides, "
           f"{results['memory_bytes'] / GIB:.0f} GiB, Linux {results['kernel']}; {results['date']}; revision "
           f"{results['revision']}. Peer: {versions}"
           + (f", with {results['peer_preload']}" if results.get("peer_preload") else "") + ". "
           f"LoRA r 16 on all linears, AdamW, clipping at 1, constant learning rate; weights of the shapes are random, their "
           f"files are in {results['weights']}.", ""]
    load = max((r.get("load_before", 0) for row in rows.values() for r in row.get("runs", [])), default=0)
    if load > results["cores"] + 1:
        out += [f"**The machine was not idle (load up to {load:.1f} before a run): these figures are provisional.**", ""]
    aims = targets(rows)
    if aims:
        out += ["## Targets", ""] + table(["what", "target", "measured", "met"], aims)
    gemm = rows.get("machine", {}).get("gemm", {})
    if gemm:
        best_ = ", ".join(f"{k} {v:.0f}" for k, v in gemm["best"]["columns"].items())
        out += ["## The machine", "",
                f"Dense products of these models' shapes with 1,024 rows, {results['threads']} threads, best GFLOP/s (int8: "
                f"GOP/s): {best_}. Multiply-adds of one core in registers: {gemm['best']['core_peak']:.0f}. These are the "
                "*measured peak* of the tables below.", "", f"`{rows['machine']['command']}`", ""]
        alone = rows["machine"].get("import_only")
        if alone and "failed" not in alone:
            out += [f"Importing the peer's libraries alone takes {alone['wall']:.1f} s and {gib(alone['peak_rss'])} GiB.", ""]
    compared = [n for n in rows if "who" in rows[n]]
    if compared:
        out += ["## Speed and memory", ""]
        for name in compared:
            out += comparison(name, rows[name], rows)
    lines = parity(rows)
    if lines:
        out += ["## Parity", "", "Largest relative difference over the steps of a row, to the peer's f32 run or, where that was not "
                "run, to our own: loss of each step within 1e-4 and gradient norm within 1 % where arithmetic is f32, else "
                "2e-2 and 5 %.", ""]
        out += table(["row", "", "beside", "steps", "loss", "gradient norm", ""], lines)
    row = rows.get("memory")
    if row:
        lines = []
        for r in row["runs"]:
            w = r["what"]
            text = f"{w['shape']} {w['weights']}, {w['batch']} × {w['length']}, r {w['rank']}" + "".join(
                f", {k}" + ("" if v is True else f" {v}") for k, v in w.items()
                if k in ("gradient_checkpointing", "compute", "tokens_per_batch"))
            if "failed" in r:
                lines.append([text, r["failed"], "", "", "", ""])
            else:
                lines.append([text, f"{r['planned'] / MIB:.1f}", f"{r['above_start'] / MIB:.1f}",
                              f"{100 * (r['planned'] / r['above_start'] - 1):+.1f} %", f"{r['peak_anon'] / MIB:.0f}",
                              f"{r['peak_rss'] / MIB:.0f}"])
        out += ["## Memory, planned and measured", "", "MiB; measured: anonymous memory beyond what the process had at its "
                "start; the last two columns are of the whole process, the last one with mapped weights.", ""]
        out += table(["", "planned", "measured", "", "peak anonymous", "peak RSS"], lines) + [f"`{row['command']}`", ""]
    if rows.get("gate", {}).get("gate", {}).get("text"):
        out += ["## Low precision", "", "The fall of the held-out loss within 0.5 % of f32's, gradient norms within 5 %, on "
                "pretrained models.", "", "```", rows["gate"]["gate"]["text"].rstrip(), "```", "",
                f"`{rows['gate']['command']}`", ""]
    if rows.get("methods", {}).get("pairs"):
        out += ["## Methods beside LoRA", "", "SmolLM2-135M, f32, 2 samples of 512 tokens a step. Beside each method a LoRA on all "
                "linear layers with about as many trained numbers, run right after it.", ""]
        out += methods(rows["methods"])
    if rows.get("scaling", {}).get("runs"):
        out += ["## Scaling", "", "SmolLM2-135M, f32. The formula counts what a LoRA step needs: 4 operations per weight and "
                "token, the head at its labels, causal attention with five products backward, the adapters; nothing for "
                "recomputation. Where useful GFLOP/s stay level, cost grows as the formula says.", ""]
        out += scaling(rows["scaling"])
    return "\n".join(out).rstrip() + "\n"

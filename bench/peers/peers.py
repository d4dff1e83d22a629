#!/usr/bin/env python3
"""Ours beside transformers + peft + Trainer: the same tokens, the same start, the same machine, one run.

peers.py --data DATA [--work DIR] [--only PART,...] [--vs REV] [--report]

DATA has datasets/ and tokenizers/ (GSM8K, Alpaca, HH-RLHF; a SmolLM2 tokenizer). PEER_PYTHON names the Python of a virtual
environment with requirements.txt. Parts: see PARTS below; every finished measurement stands in WORK/results.json and is not
repeated, so an interrupted run goes on. Then docs/benchmarks.md is written (--report: only that).
What runs alternates: ours, peer, peer, ours where it is short enough to do so. Rates are tokens of all steps but the first over
their time; memory is sampled from /proc every 20 ms for both sides alike.
"""
import argparse, json, os, platform, random, re, shutil, statistics, subprocess, sys, threading, time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
SHAPES = {"135M": "smollm2-135m", "0.5B": "qwen2.5-0.5b", "1.1B": "tinyllama-1.1b"}
THREADS = len(os.sched_getaffinity(0))


class Bench:
    def __init__(self, args):
        self.args = args
        self.work = Path(args.work)
        self.work.mkdir(parents=True, exist_ok=True)
        self.results_path = self.work / "results.json"
        self.results = json.loads(self.results_path.read_text()) if self.results_path.exists() else {}
        self.peft = args.program or str(ROOT / "build/release/peft-toolkit")
        self.make_model = str(ROOT / "build/release/make_model")
        self.python = os.environ.get("PEER_PYTHON", sys.executable)
        self.env = dict(os.environ, OMP_NUM_THREADS=str(THREADS), TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")

    def keep(self, key, value):
        self.results[key] = value
        tmp = self.results_path.with_suffix(".tmp")
        tmp.write_text(json.dumps(self.results, indent=1))
        tmp.rename(self.results_path)

    # --- what both sides get -------------------------------------------------------------------

    def model(self, size, dtype):
        path = self.work / f"model-{size}-{dtype}"
        if not (path / "model.safetensors").exists():
            subprocess.run([self.make_model, path, "--shape", SHAPES[size], "--dtype", dtype, "--tokenizer",
                            f"{self.args.data}/tokenizers/smollm2", "--seed", "1"], check=True)
        return path

    def adapter(self, size, dtype):
        path = self.work / f"adapter-{size}"
        if not (path / "adapter_model.safetensors").exists():
            subprocess.run([self.python, HERE / "peer_peft.py", "make-adapter", self.model(size, dtype), path], check=True,
                           env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return path

    def tokens(self, kind):
        """JSONL of input_ids and labels, made once."""
        path = self.work / f"{kind}.jsonl"
        if path.exists():
            return path
        rng = random.Random(kind)
        rows = []
        if kind == "fixed512":
            for _ in range(400):
                ids = [rng.randrange(40000) for _ in range(512)]
                rows.append({"input_ids": ids, "labels": ids})
        elif kind == "short":
            for _ in range(1000):
                n = rng.randrange(12, 37)
                ids = [rng.randrange(40000) for _ in range(n)]
                rows.append({"input_ids": ids, "labels": [-100] * (n // 2) + ids[n // 2 :]})
        elif kind == "shared":
            for _ in range(60):
                prompt = [rng.randrange(40000) for _ in range(48)]
                for _ in range(8):
                    answer = [rng.randrange(40000) for _ in range(13)]
                    rows.append({"input_ids": prompt + answer, "labels": [-100] * 48 + answer})
        else:
            return self.export(kind, path)
        tmp = path.with_suffix(".tmp")
        tmp.write_text("".join(json.dumps(r) + "\n" for r in rows))
        tmp.rename(path)
        return path

    def export(self, kind, path):
        file, prompt, target = {
            "gsm8k": ("gsm8k/train.jsonl", "Question: {question}\nAnswer:", " {answer}"),
            "alpaca": ("alpaca-en/train.json", "{instruction}\n{input?}\n", "{output}")}[kind]
        config = self.work / "export.yaml"
        config.write_text(json.dumps({
            "model": {"name_or_path": str(self.model("135M", "f32"))},
            "data": {"train": f"{self.args.data}/datasets/{file}", "prompt": prompt, "target": target, "overlength": "drop",
                     "max_samples": 400, "shuffle": False},
            "training": {"max_length": 1024}}))
        out = subprocess.run([self.peft, "data", "tokens", config, "-q"], check=True, capture_output=True, text=True).stdout
        tmp = path.with_suffix(".tmp")
        tmp.write_text(out)
        tmp.rename(path)
        return path

    # --- running -------------------------------------------------------------------------------

    def watch(self, cmd, log):
        """Runs it; (seconds, peak RSS, peak anonymous memory)."""
        begin, peak = time.time(), [0, 0]
        with open(log, "w") as f:
            p = subprocess.Popen([str(c) for c in cmd], stdout=f, stderr=f, env=self.env)

            def sample():
                while p.poll() is None:
                    try:
                        for line in open(f"/proc/{p.pid}/status"):
                            if line.startswith("VmHWM"):
                                peak[0] = max(peak[0], int(line.split()[1]) * 1024)
                            elif line.startswith("RssAnon"):
                                peak[1] = max(peak[1], int(line.split()[1]) * 1024)
                    except OSError:
                        return
                    time.sleep(0.02)

            t = threading.Thread(target=sample)
            t.start()
            p.wait()
            t.join()
        if p.returncode != 0:
            raise SystemExit(f"failed ({p.returncode}): {' '.join(map(str, cmd))}\n{Path(log).read_text()[-2000:]}")
        return time.time() - begin, peak[0], peak[1]

    def ours(self, size, kind, compute="f32", batch=8, steps=3, dtype="f32", more=(), program=None):
        out = self.work / "out-ours"
        shutil.rmtree(out, ignore_errors=True)
        cmd = [program or self.peft, "train", "/dev/null", f"model.name_or_path={self.model(size, dtype)}",
               f"model.adapter_name_or_path={self.adapter(size, dtype)}", f"data.train={self.tokens(kind)}",
               "data.input_ids=input_ids", "data.labels=labels", "data.shuffle=false", f"training.output_dir={out}",
               f"training.per_device_train_batch_size={batch}", "training.gradient_accumulation_steps=1",
               f"training.max_steps={steps}", "training.learning_rate=2e-4", "training.lr_scheduler_type=constant",
               "training.weight_decay=0", "training.max_grad_norm=1", "training.logging_steps=1",
               "training.eval_strategy=no", "training.save_strategy=no", f"training.compute={compute}",
               f"training.num_threads={THREADS}", *more]
        wall, rss, anon = self.watch(cmd, self.work / "ours.log")
        timing = json.loads((out / "timing.json").read_text())
        rows = [json.loads(line) for line in open(out / "metrics.jsonl")]
        ends = timing["step_ends"]
        per_step = [r for r in rows if "loss" in r]
        tokens = [b["tokens"] - a for a, b in zip([0] + [r["tokens"] for r in per_step], per_step)]
        labels = [b["supervised_tokens"] - a for a, b in zip([0] + [r["supervised_tokens"] for r in per_step], per_step)]
        return self.row(ends, tokens, labels, tokens, wall, rss, anon, loss=[r["loss"] for r in per_step],
                        grad_norm=[r["grad_norm"] for r in per_step], planned=timing.get("planned_bytes"),
                        above_start=timing.get("above_start_bytes"))

    def peer(self, size, kind, dtype="f32", batch=8, steps=3, gc=False, attn="sdpa", file_dtype="f32"):
        out = self.work / "peer.json"
        out.unlink(missing_ok=True)
        cmd = [self.python, HERE / "peer_peft.py", "train", "--model", self.model(size, file_dtype), "--data", self.tokens(kind),
               "--adapter", self.adapter(size, file_dtype), "--out", out, "--work", self.work / "out-peer", "--dtype", dtype,
               "--attn", attn, "--batch", batch, "--steps", steps, "--threads", THREADS, "--save", self.work / "peer-saved",
               *(["--gc"] if gc else [])]
        wall, rss, anon = self.watch(cmd, self.work / "peer.log")
        r = json.loads(out.read_text())
        return self.row(r["ends"], r["real"], r["labels"], r["padded"], wall, rss, anon, loss=r["loss"],
                        grad_norm=r["grad_norm"], imported=r["imported"], versions=r["versions"])

    @staticmethod
    def row(ends, real, labels, padded, wall, rss, anon, **more):
        """Rates of all steps but the first."""
        seconds = ends[-1] - ends[0]
        n = len(ends)
        rate = lambda c: sum(c[1:n]) / seconds if n > 1 else None
        steady = seconds / (n - 1) if n > 1 else None
        return {"real": rate(real), "labels": rate(labels), "padded": rate(padded), "wall": wall, "rss": rss, "anon": anon,
                "startup": ends[0] - steady * real[0] / (sum(real[1:n]) / (n - 1)) if n > 1 else None, "steps": n, **more}

    def do(self, key, fn, *args, **kw):
        if key in self.results:
            return self.results[key]
        t = time.time()
        value = fn(*args, **kw)
        self.keep(key, value)
        shown = f"{value['real']:8.1f} real tokens/s, RSS {value['rss'] / 1e9:.2f} GB" if value.get("real") else ""
        print(f"{key:45s} {shown} ({time.time() - t:.0f} s)", flush=True)
        return value


def part_machine(b):
    if "machine" in b.results:
        return
    cpu = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")][0]
    bench = ROOT / "build/release/bench_gemm_bench"
    subprocess.run(["cmake", "--build", ROOT / "build/release", "--target", "bench_gemm_bench"], check=True,
                   stdout=subprocess.DEVNULL)
    table = subprocess.run([bench, "--rows", "1024", "--threads", str(THREADS), "--seconds", "0.5", "--no-head"],
                           capture_output=True, text=True, check=True).stdout
    peak = max(float(x) for x in re.findall(r"avx(?:512|2) (\d+)", table.splitlines()[0]))
    rev = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    b.keep("machine", {"cpu": cpu, "threads": THREADS, "kernel": platform.release(), "date": time.strftime("%Y-%m-%d"),
                       "peak_core": peak, "gemm": table, "revision": rev})


def part_gate(b):
    """The first 20 steps must be the same run."""
    b.do("gate/ours/f32", b.ours, "135M", "fixed512", "f32", batch=1, steps=20)
    b.do("gate/peer/f32", b.peer, "135M", "fixed512", "f32", batch=1, steps=20)
    for compute in ("bf16", "int8"):
        b.do(f"gate/ours/{compute}", b.ours, "135M", "fixed512", compute, batch=1, steps=20)


def part_grid(b):
    for dtype in ("bf16", "f32"):
        for gc in (False, True):
            for attn in ("sdpa", "eager"):
                if b.args.quick and attn == "eager" and (gc or dtype == "f32"):
                    continue
                b.do(f"135M/fixed512/b8/peer/{dtype}{'+gc' if gc else ''}/{attn}", b.peer, "135M", "fixed512", dtype, gc=gc,
                     attn=attn, steps=2 if dtype == "f32" else 3)
        b.do(f"135M/fixed512/b1/peer/{dtype}/sdpa", b.peer, "135M", "fixed512", dtype, batch=1, steps=10)


def part_135m(b):
    for compute in ("f32", "bf16", "int8"):
        for i in range(2):
            b.do(f"135M/fixed512/b8/ours/{compute}/{i}", b.ours, "135M", "fixed512", compute, steps=4)
    b.do("135M/fixed512/b8/ours/f32+gc", b.ours, "135M", "fixed512", "f32", steps=3,
         more=["training.gradient_checkpointing=true"])
    b.do("135M/fixed512/b1/ours/int8", b.ours, "135M", "fixed512", "int8", batch=1, steps=12)
    for i in range(2):
        b.do(f"135M/abba/peer/{i}", b.peer, "135M", "fixed512", "bf16", batch=1, steps=12)
        b.do(f"135M/abba/ours/{i}", b.ours, "135M", "fixed512", "int8", steps=4)


def part_data(b):
    for kind in ("gsm8k", "alpaca"):
        b.do(f"135M/{kind}/b8/peer/bf16", b.peer, "135M", kind, "bf16", steps=5)
        for compute in ("f32", "bf16", "int8"):
            b.do(f"135M/{kind}/b8/ours/{compute}", b.ours, "135M", kind, compute, steps=12)
        b.do(f"135M/{kind}/b8/peer/f32", b.peer, "135M", kind, "f32", steps=3)


def part_05b(b):
    for dtype in ("bf16", "f32"):
        b.do(f"0.5B/fixed512/b2/peer/{dtype}", b.peer, "0.5B", "fixed512", dtype, batch=2, steps=3, file_dtype="bf16")
    for compute in ("f32", "bf16", "int8"):
        b.do(f"0.5B/fixed512/b2/ours/{compute}", b.ours, "0.5B", "fixed512", compute, batch=2, steps=4, dtype="bf16")
    b.do("0.5B/fixed512/b1/ours/f32", b.ours, "0.5B", "fixed512", "f32", batch=1, steps=3, dtype="bf16")


def part_11b(b):
    b.do("1.1B/fixed512/b1/peer/bf16", b.peer, "1.1B", "fixed512", "bf16", batch=1, steps=3, file_dtype="bf16")
    for compute in ("f32", "int8"):
        b.do(f"1.1B/fixed512/b1/ours/{compute}", b.ours, "1.1B", "fixed512", compute, batch=1, steps=3, dtype="bf16")


def part_shared(b):
    """8 answers to each prompt, 48 tokens to 13."""
    for i in range(2):
        for how in ("always", "never"):
            b.do(f"shared/{how}/{i}", b.ours, "135M", "shared", "f32", batch=64, steps=5, more=[f"data.share_prefixes={how}"])
            b.do(f"unshared/{'auto' if how == 'always' else how}/{i}", b.ours, "135M", "short", "f32", batch=64, steps=5,
                 more=[f"data.share_prefixes={'auto' if how == 'always' else how}"])


def part_short(b):
    """From start to saved adapter, 1,000 short samples."""
    b.do("short/ours/int8", b.ours, "135M", "short", "int8", batch=8, steps=125)
    b.do("short/ours/f32", b.ours, "135M", "short", "f32", batch=8, steps=125)
    b.do("short/peer/bf16", b.peer, "135M", "short", "bf16", batch=8, steps=125)


def part_scaling(b):
    """Rows of a micro-batch; threads."""
    for t in (512, 1024, 2048, 4096):
        b.do(f"scaling/T/{t}", b.ours, "135M", "fixed512", "f32", steps=3, more=[f"training.tokens_per_batch={t}"])
    for n in sorted({1, 2, THREADS, 2 * THREADS}):
        b.do(f"scaling/threads/{n}", b.ours, "135M", "fixed512", "f32", steps=3, more=[f"training.num_threads={n}"])


PARTS = {"machine": part_machine, "gate": part_gate, "135m": part_135m, "grid": part_grid, "data": part_data, "0.5b": part_05b,
         "1.1b": part_11b, "shared": part_shared, "short": part_short, "scaling": part_scaling}


def versus(b, rev):
    """Ours at an earlier revision, in turn with the present one."""
    tree = b.work / f"rev-{rev}"
    if not tree.exists():
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "--detach", tree, rev], check=True)
    subprocess.run(["cmake", "--preset", "release", "-Wno-dev"], cwd=tree, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", "build/release", "--target", "peft-toolkit"], cwd=tree, check=True,
                   stdout=subprocess.DEVNULL)
    old = tree / "build/release/peft-toolkit"
    rates = {"now": [], rev: []}
    for who in ("now", rev, rev, "now", "now", rev, rev, "now"):
        row = b.ours("135M", "fixed512", b.args.compute, steps=3, program=None if who == "now" else str(old))
        rates[who].append(row["real"])
        print(f"{who:12s} {row['real']:.1f} tokens/s", flush=True)
    now, then = (statistics.median(rates[k]) for k in ("now", rev))
    print(f"now / {rev}: {now / then:.3f}")
    subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", tree], check=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True), p.add_argument("--work", default=str(ROOT / "build/peers"))
    p.add_argument("--program"), p.add_argument("--only"), p.add_argument("--vs"), p.add_argument("--report", action="store_true")
    p.add_argument("--quick", action="store_true", help="a smaller grid of the peer")
    p.add_argument("--compute", default="f32", help="for --vs")
    args = p.parse_args()
    args.data = str(Path(args.data).resolve())
    b = Bench(args)
    if args.vs:
        return versus(b, args.vs)
    for name in args.only.split(",") if args.only else PARTS:
        if not args.report:
            PARTS[name](b)
    import report
    report.write(b.results, ROOT / "docs/benchmarks.md")


sys.path.insert(0, str(HERE))
main()

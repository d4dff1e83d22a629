#!/usr/bin/env python3
"""Our training beside transformers + peft + Trainer, on the same tokens, from the same adapter, on this machine.

  PEER_PYTHON=~/peer/bin/python bench/peers/peers.py --data DIR            every row of the table (about 45 minutes)
  bench/peers/peers.py --list                                              the rows and what they cost
  bench/peers/peers.py --only fixed512-135m --steps 6                      one row, more steps
  bench/peers/peers.py --only scaling,memory                               rows that need no peer
  bench/peers/peers.py --vs REV                                            an earlier revision of ours in place of the peer
  bench/peers/peers.py --page bench/peers/results/FILE.json                the page from results alone, nothing is run

Every run is kept in build/peers/cache: a table that was interrupted goes on where it stopped, and only what changed (our
program, the peer's versions, the row) is run again. Runs that are compared belong to one group; when one side changes, the
whole group is run anew, because only ratios of one session mean anything. Results go to
bench/peers/results/<cpu>-<date>.json, the page to docs/benchmarks.md. How it is done and why: docs/internals/bench.md.

--data names a folder with datasets/gsm8k/train.jsonl and the other files that tokens.py lists, and tokenizers/<name>; without
it rows of fixed length are drawn at random, and rows of real text are left out."""
import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True
import benchmark_page  # noqa: E402
import runs  # noqa: E402
import tokens  # noqa: E402

WORK = os.path.join(ROOT, "build", "peers")
GRID = [{"dtype": dtype, "checkpointing": ckpt, "attention": attention}
        for dtype in ("f32", "bf16") for ckpt in (False, True) for attention in ("sdpa", "eager")]
GRID.append({"dtype": "amp", "checkpointing": False, "attention": "sdpa"})

# name: model, rows of tokens, samples of a step, steps, who runs, how often (2: there and back, ABBA), minutes on two
# cores at 230 GFLOP/s. Ours by type of arithmetic; "best" and "f32" of the peer are its fastest points of the grid.
ROWS = {
    "machine": {"minutes": 0.5},
    "grid-135m": {"shape": "smollm2-135m", "rows": "fixed512", "batch": 4, "steps": 2, "peer": GRID, "minutes": 7},
    "fixed512-135m": {"shape": "smollm2-135m", "rows": "fixed512", "batch": 8, "steps": 3,
                      "ours": ["f32", "bf16", "int8"], "peer": ["f32", "best"], "repeat": 2, "minutes": 7},
    "batch1-135m": {"shape": "smollm2-135m", "rows": "fixed512", "batch": 1, "steps": 5,
                    "ours": ["f32", "bf16", "int8"], "peer": ["best"], "minutes": 1},
    "parity-135m": {"shape": "smollm2-135m", "rows": "fixed512", "batch": 1, "steps": 20, "ours": ["f32"], "peer": ["f32"],
                    "minutes": 2.5},
    "gsm8k-135m": {"shape": "smollm2-135m", "rows": "gsm8k", "batch": 8, "steps": 5, "ours": ["f32", "bf16", "int8"],
                   "peer": ["best"], "minutes": 2},
    "alpaca-135m": {"shape": "smollm2-135m", "rows": "alpaca", "batch": 8, "steps": 5, "ours": ["f32", "bf16", "int8"],
                    "peer": ["best"], "minutes": 2.5},
    "hh-135m": {"shape": "smollm2-135m", "rows": "hh", "batch": 8, "steps": 4, "ours": ["f32", "int8"], "peer": ["best"],
                "minutes": 2.5},
    "fixed512-0.5b": {"shape": "qwen2.5-0.5b", "rows": "fixed512", "batch": 2, "steps": 3, "ours": ["f32", "bf16", "int8"],
                      "peer": ["f32", "best"], "minutes": 2.5},
    "fixed512-1.1b": {"shape": "tinyllama-1.1b", "rows": "fixed512", "batch": 1, "steps": 3,
                      "ours": ["f32", "bf16", "int8"], "peer": ["best"], "minutes": 1.5},
    "short1000-135m": {"shape": "smollm2-135m", "rows": "short", "batch": 8, "steps": 125, "ours": ["f32", "auto"],
                       "peer": ["best"], "minutes": 2.5},
    "shared-135m": {"shape": "smollm2-135m", "rows": "shared48x13x8", "batch": 64, "steps": 3,
                    "ours": [{"compute": "f32", "share": "never"}, {"compute": "f32", "share": "auto"}], "repeat": 2,
                    "minutes": 1},
    "shared5to1-135m": {"shape": "smollm2-135m", "rows": "shared320x64x8", "batch": 16, "steps": 3,
                        "ours": [{"compute": "f32", "share": "never"}, {"compute": "f32", "share": "auto"}], "repeat": 2,
                        "minutes": 1},
    "unshared-135m": {"shape": "smollm2-135m", "rows": "fixed512", "batch": 4, "steps": 3,
                      "ours": [{"compute": "f32", "share": "never"}, {"compute": "f32", "share": "auto"}], "repeat": 2,
                      "minutes": 1},
    "memory": {"minutes": 2},
    "methods": {"minutes": 11},
    "scaling": {"minutes": 4},
    "gate": {"minutes": 8},
}
# Twelve configurations for the memory plan: shape, type of the weights, tokens of a row, samples, rank, keys of `training`.
MEMORY = [("smollm2-135m", "bf16", 512, 1, 16, {}), ("smollm2-135m", "bf16", 512, 4, 16, {}),
          ("smollm2-135m", "bf16", 512, 8, 16, {}), ("smollm2-135m", "bf16", 2048, 1, 16, {}),
          ("smollm2-135m", "bf16", 512, 4, 16, {"gradient_checkpointing": True}),
          ("smollm2-135m", "bf16", 512, 4, 64, {}), ("smollm2-135m", "bf16", 512, 4, 4, {}),
          ("smollm2-135m", "f32", 512, 4, 16, {"tokens_per_batch": 512}),
          ("smollm2-135m", "bf16", 512, 4, 16, {"compute": "int8"}), ("qwen2.5-0.5b", "bf16", 512, 1, 16, {}),
          ("qwen2.5-0.5b", "bf16", 512, 2, 16, {"gradient_checkpointing": True}),
          ("tinyllama-1.1b", "bf16", 512, 1, 16, {"gradient_checkpointing": True})]
SCALING = {  # what is varied: (tokens of a row, samples, rank, threads (0: all), tokens of a micro-batch)
    "rows of a micro-batch": [(512, 8, 16, 0, t) for t in (512, 1024, 2048, 4096)],
    "sequence length": [(64, 32, 16, 0, 0), (256, 8, 16, 0, 0), (512, 4, 16, 0, 0), (1024, 2, 16, 0, 0), (2048, 1, 16, 0, 0),
                        (4096, 1, 16, 0, 0), (8192, 1, 16, 0, 0)],
    "rank": [(512, 4, r, 0, 0) for r in (4, 16, 64, 256)],
    "threads": [(512, 4, 16, t, 0) for t in (1, 2, 4)],
}


LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ALL = {"target_modules": LINEAR}
METHODS = {  # name in the table -> the peft section, LoRA on all linears beside it
    "dora": {"method": "lora", "lora": {"r": 16, "use_dora": True, **ALL}},
    "lora, pissa": {"method": "lora", "lora": {"r": 16, "init": "pissa_niter_4", **ALL}},
    "lora_fa": {"method": "lora", "lora": {"r": 16, "lora_fa": True, **ALL}},
    "vera": {"method": "vera", "vera": {"r": 64, **ALL}},
    "loha": {"method": "loha", "loha": {"r": 8, **ALL}},
    "lokr": {"method": "lokr", "lokr": {"r": 8, **ALL}},
    "miss": {"method": "miss", "miss": {"r": 16, **ALL}},
    "oft": {"method": "oft", "oft": {"oft_block_size": 32, **ALL}},
    "boft": {"method": "boft", "boft": {"boft_block_size": 4, **ALL}},
    "hra": {"method": "hra", "hra": {"r": 8, **ALL}},
    "fourierft": {"method": "fourierft", "fourierft": {"n_frequency": 1000, **ALL}},
    "c3a": {"method": "c3a", "c3a": {"block_size": 64, **ALL}},
    "randlora": {"method": "randlora", "randlora": {"r": 32, **ALL}},
    "delora": {"method": "delora", "delora": {"r": 16, **ALL}},
    "road": {"method": "road", "road": {"variant": "road_2", **ALL}},
    "hira": {"method": "hira", "hira": {"r": 16, **ALL}},
    "gralora": {"method": "gralora", "gralora": {"r": 16, **ALL}},
    "shira": {"method": "shira", "shira": {"r": 16, **ALL}},
    "adalora": {"method": "adalora", "adalora": {"init_r": 12, "target_r": 8, "tinit": 0, "tfinal": 0, **ALL}},
    "ia3": {"method": "ia3"},
    "ln_tuning": {"method": "ln_tuning"},
    "freeze": {"method": "freeze", "freeze": {"freeze_trainable_layers": 1}},
    "trainable_tokens": {"method": "trainable_tokens", "trainable_tokens": {"token_indices": list(range(64))}},
    "prompt_tuning": {"method": "prompt_tuning", "prompt_tuning": {"num_virtual_tokens": 8}},
    "prefix_tuning": {"method": "prefix_tuning", "prefix_tuning": {"num_virtual_tokens": 8}},
    "p_tuning": {"method": "p_tuning", "p_tuning": {"num_virtual_tokens": 8, "encoder_hidden_size": 576}},
    "seq_bn": {"method": "seq_bn"},
    "double_seq_bn": {"method": "double_seq_bn"},
    "par_bn": {"method": "par_bn", "par_bn": {"reduction_factor": 16}},
    "scaled_par_bn": {"method": "scaled_par_bn", "scaled_par_bn": {"reduction_factor": 16}},
    "seq_bn_inv": {"method": "seq_bn_inv"},
    "double_seq_bn_inv": {"method": "double_seq_bn_inv"},
    "adapter_plus": {"method": "adapter_plus"},
    "compacter": {"method": "compacter", "compacter": {"reduction_factor": 36}},
    "compacter++": {"method": "compacter++", "compacter++": {"reduction_factor": 36}},
    "loreft": {"method": "loreft"},
    "noreft": {"method": "noreft"},
    "direft": {"method": "direft"},
    "adapterhub_lora": {"method": "adapterhub_lora"},
    "adapterhub_ia3": {"method": "adapterhub_ia3"},
    "adapterhub_prefix_tuning": {"method": "adapterhub_prefix_tuning"},
}


def sha(*parts):
    h = hashlib.sha256()
    for p in parts:
        h.update(p if isinstance(p, bytes) else json.dumps(p, sort_keys=True).encode())
        h.update(b"\0")
    return h.hexdigest()[:20]


def contents(path):
    with open(path, "rb") as f:
        return f.read()


def log(text):
    print(text, file=sys.stderr, flush=True)


class Table:
    def __init__(self, opt):
        self.opt = opt
        self.program = opt.program or os.path.join(ROOT, "build", "release", "peft-toolkit")
        self.make_model = os.path.join(ROOT, "build", "release", "make_model")
        for path in (self.program, self.make_model):
            if not os.path.exists(path):
                sys.exit(f"{path} is missing: build it first (make)")
        self.cores = len(os.sched_getaffinity(0))
        self.threads = opt.threads or self.cores
        self.started = time.monotonic()
        self.session = [opt.session] if opt.session else []
        self.cpu = cpu()
        self.peer_script = os.path.join(HERE, "peer_peft.py")
        self.peer_key = None
        if opt.peer_python:
            versions = subprocess.run([opt.peer_python, "-c", "from importlib.metadata import version as v\nfor n in "
                                       "('torch', 'transformers', 'peft', 'accelerate'): print(n, v(n))"],
                                      capture_output=True, text=True)
            if versions.returncode != 0:
                sys.exit(f"{opt.peer_python} has no transformers and peft: {versions.stderr.strip().splitlines()[-1]}")
            self.versions = dict(line.split() for line in versions.stdout.splitlines())
            self.peer_key = sha(self.versions, contents(self.peer_script), opt.peer_preload or "")
        self.ours_key = sha(contents(self.program))
        self.results = {"cpu": self.cpu, "cores": self.cores, "threads": self.threads, "kernel": os.uname().release,
                        "memory_bytes": memory_bytes(), "date": time.strftime("%Y-%m-%d"), "weights": opt.weights,
                        "peer_versions": getattr(self, "versions", {}), "peer_preload": opt.peer_preload,
                        "revision": revision(), "rows": {}}
        self.path = opt.results or (os.path.join(WORK, "smoke.json") if opt.smoke else os.path.join(
            HERE, "results", f"{slug(self.cpu)}-{self.results['date']}.json"))
        if os.path.exists(self.path):
            with open(self.path) as f:
                self.results["rows"] = json.load(f)["rows"]

    # -- one run, or the one that is remembered ------------------------------------------------------------------------
    def cached(self, group, index, what, make):
        path = os.path.join(WORK, "cache", f"{sha(group, index, what)}.json")
        if os.path.exists(path) and not self.opt.fresh:
            with open(path) as f:
                return json.load(f)
        if self.opt.limit and time.monotonic() - self.started > self.opt.limit * 60:
            sys.exit(f"the limit of {self.opt.limit:g} minutes is reached; run the same command again to go on")
        begin = time.monotonic()
        try:
            run = make()
        except runs.Failed as failed:
            log(f"    {what}: {failed}")
            return {"failed": str(failed), "what": what}
        run["what"] = what
        log(f"    {describe(what):34s} {time.monotonic() - begin:7.1f} s   steady step "
            f"{sum(runs.steady(run)) / len(runs.steady(run)):.2f} s, peak {run['peak_rss'] / 2 ** 30:.2f} GiB"
            if "seconds" in run else f"    {what}: {time.monotonic() - begin:.1f} s")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path + ".part", "w") as f:
            json.dump(run, f)
        os.replace(path + ".part", path)
        return run

    def folder(self, name):
        return os.path.join(WORK, "runs", name)

    def model(self, shape, dtype=None):
        return tokens.model(self.make_model, WORK, shape, dtype or self.opt.weights, self.opt.data)

    def rows_of(self, folder, kind):
        return tokens.rows(self.program, WORK, folder, self.opt.data, kind)

    def our_config(self, folder, path, batch, steps, what, rank=16, training=None):
        t = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": 1, "max_steps": steps,
             "learning_rate": 2e-4, "lr_scheduler_type": "constant", "weight_decay": 0.0, "max_grad_norm": 1.0,
             "logging_steps": 1, "save_strategy": "no", "eval_strategy": "no", "num_threads": self.threads,
             "max_length": max(len(ids) for ids, _ in tokens.read_rows(path)), "compute": what.get("compute", "f32"),
             "gradient_checkpointing": what.get("checkpointing", False), **(training or {})}
        return {"model": {"name_or_path": folder, "adapter_name_or_path": tokens.adapter(WORK, folder, rank)},
                "data": {"train": path, "input_ids": "input_ids", "labels": "labels", "shuffle": False,
                         "share_prefixes": what.get("share", "auto")},
                "training": t}

    def run_ours(self, name, config, program=None):
        return runs.ours(program or self.program, self.folder(name), config, self.opt.run_limit, self.opt.nice)

    def run_peer(self, name, folder, path, batch, steps, what):
        arguments = ["--model", folder, "--rows", path, "--adapter", tokens.adapter(WORK, folder, 16), "--batch", batch,
                     "--steps", steps, "--dtype", what["dtype"], "--attention", what["attention"]]
        if what["checkpointing"]:
            arguments.append("--checkpointing")
        return runs.peer(self.opt.peer_python, self.peer_script, self.folder(name), arguments, self.threads,
                         self.opt.run_limit, self.opt.nice, self.opt.peer_preload)

    # -- kinds of rows ---------------------------------------------------------------------------------------------------
    def peers_best(self, dtype=None):
        grid = [r for r in self.results["rows"].get("grid-135m", {}).get("runs", []) if "failed" not in r]
        if dtype:
            grid = [r for r in grid if r["what"]["dtype"] == dtype]
        if not grid:
            return {"dtype": dtype or "bf16", "checkpointing": False, "attention": "sdpa"}
        best = min(grid, key=lambda r: sum(runs.steady(r)) / len(runs.steady(r)))["what"]
        return {k: best[k] for k in ("dtype", "checkpointing", "attention")}

    def contestants(self, spec):
        out = []
        for what in spec.get("ours", []):
            out.append({"side": "ours", **({"compute": what} if isinstance(what, str) else what)})
        for what in spec.get("peer", []) if self.peer_key else []:
            point = what if isinstance(what, dict) else self.peers_best("f32" if what == "f32" else None)
            if {"side": "peer", **point} not in out:
                out.append({"side": "peer", **point})
        return out

    def compare(self, name, spec):
        kind = spec["rows"]
        if kind in tokens.TEXTS and not (self.opt.data and os.path.exists(
                os.path.join(self.opt.data, tokens.TEXTS[kind]["train"]))):
            return log(f"    left out: --data has no {tokens.TEXTS[kind]['train']}")
        folder = self.model(spec["shape"])
        path = self.rows_of(folder, kind)
        steps, batch = self.opt.steps or spec["steps"], spec["batch"]
        who = self.contestants(spec)
        order = who + who[::-1] if (self.opt.repeat or spec.get("repeat", 1)) > 1 else who
        if not order:
            return log("    left out: no peer (set PEER_PYTHON)")
        group = sha(name, spec["shape"], contents(path), batch, steps, self.threads, self.cpu, self.opt.weights, who,
                    self.peer_key if any(w["side"] == "peer" for w in who) else "",
                    self.ours_key if any(w["side"] == "ours" for w in who) else "", self.opt.session)
        counts, lengths = tokens.batches(path, batch, steps)
        s = tokens.sizes(folder)
        out = {"spec": {**spec, "steps": steps}, "who": who, "tokens": counts, "runs": [], "parameters": s,
               "flops": [tokens.step_flops(s, 16, n, c[1]) for n, c in zip(lengths, counts)],
               "command": f"bench/peers/peers.py --only {name}" + (f" --steps {steps}" if self.opt.steps else "")}
        self.results["rows"][name] = out
        for i, what in enumerate(order):
            run_name = f"{name}-{i}"
            if what["side"] == "ours":
                config = self.our_config(folder, path, batch, steps, what)
                make = lambda: self.run_ours(run_name, config)  # noqa: E731
            else:
                make = lambda: self.run_peer(run_name, folder, path, batch, steps, what)  # noqa: E731
            out["runs"].append(self.cached(group, i, what, make))
            self.save()

    def machine(self, name, spec):
        bench = os.path.join(ROOT, "build", "release", "bench_gemm_bench")
        subprocess.run(["cmake", "--build", os.path.join(ROOT, "build", "release"), "--target", "bench_gemm_bench"],
                       check=True, stdout=subprocess.DEVNULL)

        def make():
            text = subprocess.run([bench, "--threads", str(self.threads), "--seconds", "0.1", "--rows", "1024", "--no-head"],
                                  check=True, capture_output=True, text=True).stdout
            return {"text": text, "best": best_rates(text)}
        out = {"gemm": self.cached(sha(contents(bench), self.cpu, self.threads), 0, {"side": "machine"}, make),
               "command": f"{os.path.relpath(bench, ROOT)} --threads {self.threads} --rows 1024 --no-head"}
        if self.peer_key:
            def imports():
                path = os.path.join(WORK, "import.log")
                run = runs.launch([self.opt.peer_python, self.peer_script, "--import-only"], path, self.opt.run_limit,
                                  self.opt.nice)
                return run
            out["import_only"] = self.cached(sha(self.peer_key, self.cpu), 0, {"side": "import only"}, imports)
        self.results["rows"][name] = out
        self.save()

    def memory(self, name, spec):
        out = {"runs": [], "command": "bench/peers/peers.py --only memory"}
        self.results["rows"][name] = out
        for shape, dtype, length, batch, rank, training in MEMORY:
            shape, length = ("toy", min(length, 64)) if self.opt.smoke else (shape, length)
            folder = self.model(shape, dtype)
            path = self.rows_of(folder, f"fixed{length}")
            what = {"side": "ours", "shape": shape, "weights": dtype, "length": length, "batch": batch, "rank": rank, **training}
            config = self.our_config(folder, path, batch, 2, {"share": "never"}, rank, training)
            group = sha(self.ours_key, self.cpu, contents(path), what, self.threads, *self.session)
            out["runs"].append(self.cached(group, 0, what, lambda: self.run_ours("memory", config)))
            self.save()

    def methods(self, name, spec):
        """Each method and a LoRA with about as many numbers, one after the other."""
        out = {"pairs": [], "command": "bench/peers/peers.py --only methods"}
        self.results["rows"][name] = out
        folder = self.model("toy" if self.opt.smoke else "smollm2-135m")
        per_rank = sum(i + o for _, i, o in tokens.linears(tokens.sizes(folder))) * tokens.sizes(folder)["layers"]
        path = self.rows_of(folder, "fixed128" if self.opt.smoke else "fixed512")
        steps = self.opt.steps or 4

        def run(peft):
            config = self.our_config(folder, path, 2, steps, {"share": "never"}, 16)
            config["model"] = {"name_or_path": folder}
            config["peft"] = peft
            what = {"side": "ours", "peft": peft}
            key = sha(self.ours_key, self.cpu, contents(path), what, self.opt.weights, steps, *self.session)
            return self.cached(key, 0, what, lambda: self.run_ours("methods", config))
        for method, peft in METHODS.items():
            ours = run(peft)
            pair = {"name": method, "method": ours}
            if "failed" not in ours:
                rank = max(1, round(ours["trained"] / per_rank))
                pair["lora"] = run({"method": "lora", "lora": {"r": rank, "alpha": rank, **ALL}})
                pair["rank"] = rank
            out["pairs"].append(pair)
            self.save()

    def scaling(self, name, spec):
        out = {"runs": [], "command": "bench/peers/peers.py --only scaling"}
        self.results["rows"][name] = out
        folder = self.model("toy" if self.opt.smoke else "smollm2-135m")
        s = tokens.sizes(folder)
        for varied, points in SCALING.items():
            for length, batch, rank, threads, budget in points:
                if self.opt.smoke:
                    length = min(length, 128)
                path = self.rows_of(folder, f"fixed{length}")
                training = {"tokens_per_batch": budget} if budget else {}
                training["num_threads"] = threads or self.threads
                what = {"side": "ours", "varied": varied, "length": length, "batch": batch, "rank": rank,
                        "threads": training["num_threads"], "budget": budget}
                steps = self.opt.steps or 3
                config = self.our_config(folder, path, batch, steps, {"share": "never"}, rank, training)
                group = sha(self.ours_key, self.cpu, contents(path), what, self.opt.weights, *([steps] if steps != 2 else []),
                            *self.session)
                run = self.cached(group, 0, what, lambda: self.run_ours("scaling", config))
                run["flops"] = tokens.step_flops(s, rank, [length] * batch, (length - 1) * batch)
                out["runs"].append(run)
                self.save()

    def gate(self, name, spec):
        if not self.opt.data:
            return log("    left out: no --data")
        path = os.path.join(ROOT, "bench", "gate.sh")

        def make():
            done = subprocess.run([path, self.opt.data, str(self.opt.gate_steps)], capture_output=True, text=True,
                                  env={**os.environ, "PEFT": self.program})
            if not done.stdout.strip():
                raise runs.Failed(done.stderr.strip()[-300:])
            return {"text": done.stdout, "held": done.returncode == 0}
        self.results["rows"][name] = {
            "gate": self.cached(sha(contents(path), self.ours_key, self.cpu, self.opt.gate_steps), 0, {"side": "gate"}, make),
            "command": f"bench/gate.sh DATA {self.opt.gate_steps}"}
        self.save()

    # -- all of it -------------------------------------------------------------------------------------------------------
    def save(self):
        in_order(self.results)
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        with open(self.path + ".part", "w") as f:
            json.dump(portable(self.results), f, indent=1)
            f.write("\n")
        os.replace(self.path + ".part", self.path)
        page = self.opt.page_out or (os.path.join(WORK, "smoke.md") if self.opt.smoke else
                                     os.path.join(ROOT, "docs", "benchmarks.md"))
        with open(page, "w") as f:
            f.write(benchmark_page.page(self.results))

    def go(self, names):
        for name in names:
            spec = dict(ROWS[name])
            if self.opt.smoke:
                spec = smaller(spec)
            log(f"{name} ({time.strftime('%H:%M:%S')}, load {os.getloadavg()[0]:.1f})")
            {"machine": self.machine, "memory": self.memory, "scaling": self.scaling, "methods": self.methods,
             "gate": self.gate}.get(
                name, self.compare)(name, spec)
        log(f"done in {(time.monotonic() - self.started) / 60:.1f} minutes: {os.path.relpath(self.path, ROOT)}")


def smaller(spec):
    """A row in miniature, to see that everything works: a toy model and a few tokens."""
    if "shape" in spec:
        spec["shape"] = "toy"
        spec["rows"] = {"fixed512": "fixed64", "shared320x64x8": "shared40x8x8"}.get(spec["rows"], spec["rows"])
        spec["steps"] = spec["steps"] if spec["steps"] == 20 else 3
        if spec.get("peer") is GRID:
            spec["peer"] = GRID[:2] + GRID[-1:]
    return spec


def cpu():
    found = {}
    with open("/proc/cpuinfo") as f:
        for line in f:
            key, _, value = line.partition(":")
            found.setdefault(key.strip(), value.strip())
    return f"{found.get('model name', 'unknown')} (family {found.get('cpu family', '?')}, model {found.get('model', '?')})"


def slug(text):
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def memory_bytes():
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def revision():
    done = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=10"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def best_rates(text):
    """Best GFLOP/s per column of gemm_bench's table, and the peak of one core that its first line names."""
    lines = text.splitlines()
    peaks = [float(x) for x in re.findall(r"avx\S* (\d+)", lines[0])]
    columns = [c for c in lines[1].split()[4:] if c != "%"]
    best = dict.fromkeys(columns, 0.0)
    for line in lines[2:]:
        values = line.split()[4::2]
        for c, v in zip(columns, values):
            best[c] = max(best[c], float(v))
    return {"core_peak": max(peaks, default=0), "columns": best}


def in_order(results):
    results["rows"] = {name: results["rows"][name] for name in ROWS if name in results["rows"]}
    return results


def portable(value):
    """Without the paths of this machine."""
    if isinstance(value, dict):
        return {k: portable(v) for k, v in value.items() if k not in ("out",)}
    if isinstance(value, list):
        return [portable(v) for v in value]
    if isinstance(value, str):
        for path, name in ((ROOT, "."), (os.path.expanduser("~"), "~")):
            value = value.replace(path, name)
        if os.sep in value and value.startswith(os.sep):
            value = os.path.join("...", os.path.basename(value))
    return value


def describe(what):
    if what["side"] == "peer":
        return f"peer {what['dtype']} {what['attention']}{' checkpointing' if what['checkpointing'] else ''}"
    return " ".join(["ours"] + [str(v) for k, v in what.items() if k != "side" and v not in (False, {})])


def versus(table, rev):
    """An earlier revision of ours against this one, ABBA, without the peer."""
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short=12", rev], capture_output=True, text=True)
    if commit.returncode != 0:
        sys.exit(f"git knows no revision {rev}")
    commit = commit.stdout.strip()
    tree = os.path.join(WORK, "vs", commit)
    program = os.path.join(tree, "build", "release", "peft-toolkit")
    if not os.path.exists(program):
        log(f"building {commit} in {os.path.relpath(tree, ROOT)}")
        if not os.path.isdir(tree):
            subprocess.run(["git", "-C", ROOT, "worktree", "add", "--detach", tree, commit], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        subprocess.run(["cmake", "--preset", "release", "-Wno-dev"], cwd=tree, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["cmake", "--build", "build/release", "-j", str(table.cores), "--target", "peft-toolkit"], cwd=tree,
                       check=True, stdout=subprocess.DEVNULL)
    names = table.opt.only.split(",") if table.opt.only else ["fixed512-135m", "gsm8k-135m"]
    print(f"| row | arithmetic | {commit} tokens/s | now | now ÷ then | peak RSS, then | now |\n|---|---|--:|--:|--:|--:|--:|")
    for name in names:
        spec = smaller(dict(ROWS[name])) if table.opt.smoke else dict(ROWS[name])
        if "shape" not in spec or (spec["rows"] in tokens.TEXTS and not table.opt.data):
            log(f"{name}: left out")
            continue
        folder = table.model(spec["shape"])
        path, steps = table.rows_of(folder, spec["rows"]), table.opt.steps or spec["steps"]
        counts, _ = tokens.batches(path, spec["batch"], steps)
        for what in spec.get("ours", ["f32"]):
            what = {"side": "ours", **({"compute": what} if isinstance(what, str) else what)}
            config = table.our_config(folder, path, spec["batch"], steps, what)
            group = sha("vs", name, what, table.ours_key, contents(program), contents(path), steps, table.cpu, table.opt.session)
            sides = {"then": [], "now": []}
            for i, side in enumerate(("then", "now", "now", "then")):
                run = table.cached(group, i, {**what, "revision": side},
                                   lambda: table.run_ours(f"vs-{side}", config, program if side == "then" else None))
                if "failed" in run:
                    break
                sides[side].append(run)
            if not sides["then"] or not sides["now"]:
                continue
            rate = {k: sum(runs.rates(r, counts)[0] for r in v) / len(v) for k, v in sides.items()}
            peak = {k: max(r["peak_rss"] for r in v) / 2 ** 20 for k, v in sides.items()}
            print(f"| {name} | {what['compute']} | {rate['then']:.0f} | {rate['now']:.0f} | {rate['now'] / rate['then']:.3f} | "
                  f"{peak['then']:.0f} MiB | {peak['now']:.0f} MiB |", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--only", help="rows, with commas; --list names them")
    p.add_argument("--list", action="store_true")
    p.add_argument("--data", default=os.environ.get("PEERS_DATA"), help="folder with datasets/ and tokenizers/ (PEERS_DATA)")
    p.add_argument("--peer-python", default=os.environ.get("PEER_PYTHON"), help="python with requirements.txt (PEER_PYTHON)")
    p.add_argument("--peer-preload", default=os.environ.get("PEER_PRELOAD"), help="an allocator for the peer (PEER_PRELOAD)")
    p.add_argument("--program", help="our program; default build/release/peft-toolkit")
    p.add_argument("--steps", type=int, help="of each run, the first of which is not counted")
    p.add_argument("--repeat", type=int, help="2: each contestant there and back")
    p.add_argument("--threads", type=int, help="for both sides; default: cores")
    p.add_argument("--weights", choices=("bf16", "f32"), default="bf16",
                   help="type in the weight files; real models of these shapes come in bf16")
    p.add_argument("--limit", type=float, help="minutes after which nothing new is begun")
    p.add_argument("--run-limit", type=float, default=600, help="seconds that one run may take")
    p.add_argument("--gate-steps", type=int, default=300)
    p.add_argument("--nice", type=int, default=0)
    p.add_argument("--session", default="", help="any word: a new one measures everything anew and keeps the old runs")
    p.add_argument("--fresh", action="store_true", help="remember nothing")
    p.add_argument("--results", help="file of results; default bench/peers/results/<cpu>-<date>.json")
    p.add_argument("--page-out", help="where the page goes; default docs/benchmarks.md")
    p.add_argument("--page", metavar="RESULTS", help="write the page from results and stop")
    p.add_argument("--vs", metavar="REV", help="this program against an earlier revision of it")
    p.add_argument("--smoke", action="store_true", help="every row in miniature, into build/peers")
    opt = p.parse_args()
    if opt.list:
        for name, spec in ROWS.items():
            print(f"{name:18s} {spec['minutes']:5.1f} min  " + (f"{spec['shape']}, {spec['rows']}, {spec['batch']} samples, "
                                                               f"{spec['steps']} steps" if "shape" in spec else ""))
        return print(f"{'':18s} {sum(s['minutes'] for s in ROWS.values()):5.1f} min  together, on two cores")
    if opt.page:
        with open(opt.page) as f, open(opt.page_out or os.path.join(ROOT, "docs", "benchmarks.md"), "w") as out:
            return out.write(benchmark_page.page(in_order(json.load(f)))) and None
    table = Table(opt)
    if opt.vs:
        return versus(table, opt.vs)
    names = opt.only.split(",") if opt.only else list(ROWS)
    for name in names:
        if name not in ROWS:
            sys.exit(f"there is no row {name}; --list names them")
    table.go(names)


if __name__ == "__main__":
    main()

"""Processes under a stopwatch: starting one, looking at its memory from outside, and what it says of its steps.

Both sides are measured by the same means: peak resident memory is what the kernel reports for the process when it ends
(ru_maxrss), anonymous memory is sampled every 20 ms from /proc/<pid>/status, times are seconds since the process began."""
import json
import os
import signal
import statistics
import subprocess
import time

SAMPLE = 0.02  # seconds


class Failed(Exception):
    pass


def status_kb(pid, key):
    try:
        with open(f"/proc/{pid}/status") as f:
            for line in f:
                if line.startswith(key):
                    return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 0


def launch(command, log, limit=0, nice=0, env=None):
    """Runs a command to its end. Raises Failed with the end of its log, or when it takes longer than `limit` seconds."""
    load = os.getloadavg()[0]
    with open(log, "wb") as out:
        start = time.monotonic()
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                 env={**os.environ, **(env or {})}, start_new_session=True,
                                 preexec_fn=(lambda: os.nice(nice)) if nice else None)
        anon = 0
        try:
            while True:
                pid, code, usage = os.wait4(child.pid, os.WNOHANG)
                if pid:
                    break
                anon = max(anon, status_kb(child.pid, "RssAnon:"))
                if limit and time.monotonic() - start > limit:
                    raise Failed(f"over the limit of {limit:.0f} s")
                time.sleep(SAMPLE)
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            os.wait4(child.pid, 0)
            raise
    wall = time.monotonic() - start
    child.returncode = os.waitstatus_to_exitcode(code)  # the process is gone: Popen must not wait for it
    if child.returncode != 0:
        with open(log, errors="replace") as f:
            tail = " | ".join(f.read().strip().splitlines()[-3:])
        raise Failed(f"exit code {child.returncode}: {tail[-400:]}")
    return {"wall": wall, "peak_rss": usage.ru_maxrss * 1024, "peak_anon": anon * 1024,
            "cpu_seconds": usage.ru_utime + usage.ru_stime, "load_before": load,
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "command": list(map(str, command))}


def steps_of(ends):
    """Seconds of each step: from the end of the one before. The first one holds the start of the process."""
    return [b - a for a, b in zip([0.0] + ends[:-1], ends)]


def ours(program, folder, config, limit=0, nice=0, env=None):
    """One training run of our program; config is a dict, written as JSON, which is YAML."""
    os.makedirs(folder, exist_ok=True)
    out = os.path.join(folder, "out")
    config = json.loads(json.dumps(config))
    config["training"].update(output_dir=out, overwrite_output_dir=True)
    path = os.path.join(folder, "config.yaml")
    with open(path, "w") as f:
        json.dump(config, f, indent=1)
    run = launch([program, "train", "--quiet", path], os.path.join(folder, "log"), limit, nice, env)
    try:
        with open(os.path.join(out, "timing.json")) as f:
            timing = json.load(f)
    except FileNotFoundError:
        raise Failed("this revision writes no timing.json: it is too old to be compared")
    with open(os.path.join(out, "metrics.jsonl")) as f:
        rows = [json.loads(line) for line in f]
    with open(os.path.join(out, "environment.json")) as f:
        environment = json.load(f)
    logged = [r for r in rows if "loss" in r]
    return {**run, "side": "ours", "compute": environment["more"]["compute"],
            "seconds": steps_of(timing["step_ends"]), "phases": timing["phases"],
            "losses": [r["loss"] for r in logged], "grad_norms": [r["grad_norm"] for r in logged],
            "planned": timing["planned_bytes"], "above_start": timing["above_start_bytes"],
            "tokens_said": [timing["tokens"], timing["supervised_tokens"]], "rows": timing["rows"],
            "rows_plain": timing["rows_plain"], "out": out, "steps": len(timing["step_ends"]), "tokens": timing["tokens"],
            "trained": timing.get("trained_parameters", 0)}


def peer(python, script, folder, arguments, threads, limit=0, nice=0, preload=None):
    os.makedirs(folder, exist_ok=True)
    env = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1",
           "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}
    if preload:
        env["LD_PRELOAD"] = preload
    command = [python, script, "--threads", threads, "--out", folder] + arguments
    run = launch(list(map(str, command)), os.path.join(folder, "log"), limit, nice, env)
    with open(os.path.join(folder, "result.json")) as f:
        said = json.load(f)
    return {**run, "side": "peer", "seconds": steps_of(said["step_ends"]), "losses": said["losses"],
            "grad_norms": said["grad_norms"], "tokens_by_step": said["tokens"], "versions": said["versions"],
            "phases": {k: said[k] for k in ("imported", "opened", "trained", "saved")}}


def steady(run, drop=1):
    """Seconds of the steps that count: all but the first `drop`."""
    return run["seconds"][drop:] or run["seconds"]


def startup(run):
    """Time to the end of step 1, minus one steady step."""
    return run["seconds"][0] - statistics.median(steady(run))


def rates(run, tokens, drop=1):
    """tokens: per step [real, learned, padded]. Real, label and padded tokens per second of the steady steps."""
    n = len(run["seconds"])
    counted = tokens[:n][drop:] or tokens[:n]
    seconds = sum(steady(run, drop))
    return [sum(t[k] for t in counted) / seconds for k in range(3)]

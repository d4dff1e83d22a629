#!/usr/bin/env python3
"""Whole runs on real models and real data: GSM8K and qa-epic, and 32 rows learned by heart.

    cmake --build build/release --target peft-toolkit
    python3 tools/check_runs.py [--program build/release/peft-toolkit] [--data ../shared/data] [--models NAME ...] [--keep DIR]

Needs sacrebleu; never run by the build or the tests. About five minutes on two cores. For each model and data set:

    train    STEPS steps of LoRA; rows longer than the context are dropped and counted; evaluation by generating before the first
             step, between and at the end. The training loss and the evaluation loss must fall; kept and dropped rows must be all.
    eval     `eval --predictions` on the run's adapter gives the figures of the run's last evaluation, digit by digit; exact
             match and BLEU are computed again from the file, BLEU by sacrebleu, and must be equal to the last digit.
    overfit  32 rows, trained and evaluated on: exact match must be 100 %. Rows whose answer the model's tokenizer cannot say are
             passed over: tinystories-656k has no token for '=' and '#', so that of GSM8K only the final numbers are left to it.

Prints a table and the loss curves; exit code 1 if a check fails.
"""
import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

import sacrebleu

STEPS = 300
WHITE = " \t\n\r\v\f"
SETS = {  # rows to evaluate on, longest answer generated
    "gsm8k": dict(train="gsm8k/train.jsonl", test="gsm8k/test.jsonl", rows=64, new_tokens=160, batch=4),
    "qa-epic": dict(train="qa-epic/train.csv", test="qa-epic/test.csv", rows=0, new_tokens=32, batch=16),
}
# stories260K never saw 169 of its 512 tokens, the end of a sequence, digits and '=' among them: their embeddings are one and the
# same vector, and no update of the layers between can tell them apart. So its embedding and its head are trained, too.
SAVED = {"stories260K-hf": dict(modules_to_save=["embed_tokens", "lm_head"])}
failures = []
threads = 0


def expect(good, text):
    if not good:
        failures.append(text)
        print(f"  FAILED: {text}", flush=True)


def run(*words, stdin=None):
    r = subprocess.run(words, input=stdin, capture_output=True, text=True)
    if r.returncode != 0:
        raise SystemExit(f"{' '.join(words)}\n{r.stderr}")
    return r


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as f:
        return [json.loads(line) for line in f] if path.endswith(".jsonl") else list(csv.DictReader(f))


def write_config(path, model, train, test, out, lora, training, evaluation):
    config = dict(
        model=dict(name_or_path=model), peft=dict(method="lora", lora=dict(target_modules="all-linear", **lora)), seed=42,
        data=dict(train=train, test=test, prompt="Q: {question}\nA:", target=" {answer}", overlength="drop"),
        training=dict(output_dir=out, save_strategy="no", num_threads=threads, **training), evaluation=evaluation)
    with open(path, "w") as f:
        json.dump(config, f)  # JSON is YAML
    return path


def metrics_of(out):
    rows = [json.loads(line) for line in open(out + "/metrics.jsonl")]
    return [r for r in rows if "loss" in r], [r for r in rows if "eval_loss" in r]


def curve(losses, width=10):
    """The logged losses, averaged to `width` figures."""
    n = len(losses)
    parts = [losses[i * n // width:(i + 1) * n // width] for i in range(width)]
    return " ".join(f"{sum(p) / len(p):.3f}" for p in parts if p)


def check_predictions(program, config, last, work):
    """The figures of the run's last evaluation, made again by eval, and BLEU by sacrebleu."""
    path = work + "/predictions.jsonl"
    made = json.loads(run(program, "eval", "-q", "--config", config, "--predictions", path).stdout)
    for key in ("eval_loss", "eval_token_accuracy", "eval_exact_match", "eval_f1", "eval_bleu"):
        expect(made[key] == last[key], f"{key} of eval is {made[key]!r}, of the run {last[key]!r}")
    rows = [json.loads(line) for line in open(path, encoding="utf-8")]
    said, right = [r["prediction"].strip(WHITE) for r in rows], [r["target"].strip(WHITE) for r in rows]
    bleu = sacrebleu.corpus_bleu(said, [right]).score
    match = 100 * sum(a.lower() == b.lower() for a, b in zip(said, right)) / len(rows)
    expect(bleu == made["eval_bleu"], f"BLEU is {made['eval_bleu']!r}, sacrebleu says {bleu!r}")
    expect(match == made["eval_exact_match"], f"exact match is {made['eval_exact_match']!r}, counted again {match!r}")
    return made, bleu


def check_set(program, data, model, name, kind, work):
    s = SETS[kind]
    train, test = f"{data}/datasets/{s['train']}", f"{data}/datasets/{s['test']}"
    out = f"{work}/{kind}"
    config = write_config(out + ".yaml", model, train, test, out, dict(r=16, alpha=32, **SAVED.get(name, {})),
                          dict(max_steps=STEPS, learning_rate=2e-3, warmup_ratio=0.05, per_device_train_batch_size=s["batch"],
                               logging_steps=5, eval_steps=STEPS // 3, eval_on_start=True),
                          dict(max_samples=s["rows"], max_new_tokens=s["new_tokens"]))
    said = run(program, "train", "--overwrite", "--config", config).stderr
    kept = int(re.search(re.escape(train) + r": (\d+) of (\d+) rows", said)[1])
    dropped = re.search(re.escape(train) + r": (\d+) of (\d+) rows are longer than (\d+) tokens and were dropped", said)
    n_dropped = int(dropped[1]) if dropped else 0
    expect(kept + n_dropped == len(rows_of(train)), f"{kept} rows kept and {n_dropped} dropped of {len(rows_of(train))}")
    steps, evals = metrics_of(out)
    losses = [r["loss"] for r in steps]
    tenth = len(losses) // 10
    expect(sum(losses[-tenth:]) < 0.8 * sum(losses[:tenth]), f"the loss does not fall: {curve(losses)}")
    expect(evals[-1]["eval_loss"] < 0.8 * evals[0]["eval_loss"], "the evaluation loss does not fall")
    expect(len(evals) == 4 and evals[-1]["step"] == STEPS, f"{len(evals)} evaluations")
    made, bleu = check_predictions(program, config, evals[-1], work)
    verdict = re.search(r"^loss curve: (.*?)\.", said, re.M)[1]
    print(f"{name:18} {kind:8} {kept:5} kept {n_dropped:4} dropped  eval loss {evals[0]['eval_loss']:.3f} -> {made['eval_loss']:.3f}  "
          f"exact match {evals[0]['eval_exact_match']:.2f} -> {made['eval_exact_match']:.2f} %  BLEU {made['eval_bleu']!r} "
          f"(sacrebleu {'equal' if bleu == made['eval_bleu'] else repr(bleu)}), {int(made['eval_samples'])} rows\n"
          f"    loss {curve(losses)}: {verdict}", flush=True)


def sayable(program, model, rows):
    """Rows whose answer comes back from the tokenizer as it was."""
    texts = [" " + r["answer"] for r in rows]
    ids = run(program, "tokenize", "--no-special", "--model", model, stdin="".join(json.dumps(t) + "\n" for t in texts)).stdout
    back = run(program, "detokenize", "--model", model, stdin=ids).stdout
    return [r for r, line, t in zip(rows, back.splitlines(), texts) if json.loads(line).strip(WHITE) == t.strip(WHITE)]


def check_overfit(program, data, model, name, kind, work):
    every = [r for r in rows_of(f"{data}/datasets/{SETS[kind]['train']}")[:1000] if len(r["question"]) + len(r["answer"]) < 400]
    rows = sayable(program, model, every)[:32]
    if len(rows) < 32:
        rows = sayable(program, model, [dict(r, answer=r["answer"].split("#### ")[-1]) for r in every])[:32]
    assert len(rows) == 32 and len({r["question"] for r in rows}) == 32
    path, out = f"{work}/{kind}-32.jsonl", f"{work}/{kind}-32"
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(json.dumps(dict(question=r["question"], answer=r["answer"])) + "\n" for r in rows)
    config = write_config(out + ".yaml", model, path, path, out, dict(r=32, alpha=64, **SAVED.get(name, {})),
                          dict(max_steps=STEPS, learning_rate=4e-3, lr_scheduler_type="cosine", warmup_ratio=0.05,
                               per_device_train_batch_size=32, logging_steps=10, eval_steps=STEPS // 3),
                          dict(max_new_tokens=256))
    run(program, "train", "--overwrite", "--config", config)
    steps, evals = metrics_of(out)
    made, _ = check_predictions(program, config, evals[-1], work)
    expect(made["eval_exact_match"] == 100, f"{name}, 32 rows of {kind}: exact match {made['eval_exact_match']} %")
    first = next((e["step"] for e in evals if e["eval_exact_match"] == 100), None)
    print(f"{name:18} {kind:8} 32 rows: exact match {made['eval_exact_match']:.2f} %, 100 % first seen at step {first} of {evals[-1]['step']}, "
          f"BLEU {made['eval_bleu']!r}, loss {steps[0]['loss']:.3f} -> {steps[-1]['loss']:.2g}", flush=True)


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--program", default=root + "/build/release/peft-toolkit")
    p.add_argument("--data", default=root + "/../shared/data")
    p.add_argument("--models", nargs="+", default=["stories260K-hf", "tinystories-656k"])
    p.add_argument("--sets", nargs="+", default=list(SETS))
    p.add_argument("--keep", help="leave the runs in this folder")
    p.add_argument("--overfit-only", action="store_true")
    p.add_argument("--threads", type=int, default=0, help="1 on a machine that is busy; the figures are the same")
    a = p.parse_args()
    global threads
    threads = a.threads
    program, data = os.path.abspath(a.program), os.path.abspath(a.data)
    for name in a.models:
        work = f"{os.path.abspath(a.keep)}/{name}" if a.keep else tempfile.mkdtemp()
        os.makedirs(work, exist_ok=True)
        try:
            for kind in a.sets:
                if not a.overfit_only:
                    check_set(program, data, f"{data}/models/{name}", name, kind, work)
                check_overfit(program, data, f"{data}/models/{name}", name, kind, work)
        finally:
            if not a.keep:
                shutil.rmtree(work)
    print(f"\n{len(failures)} checks failed" if failures else "\nall checks hold")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""The peer's side of a comparison: transformers + peft + Trainer on the tokens and from the adapter that ours gets.

peer_peft.py make-adapter MODEL OUT [--r 16]     a LoRA adapter with random A and B (so that every gradient counts), f32
peer_peft.py train ...                            a training run; writes one JSON object to --out
peer_peft.py import                               nothing but the imports, for the memory that they take
"""
import argparse, json, os, sys, time

START = time.time()
PROCESS_START = None


def since_process_start():
    """Seconds since the kernel started this process: the imports count."""
    global PROCESS_START
    if PROCESS_START is None:
        ticks = int(open("/proc/self/stat").read().rsplit(")", 1)[1].split()[19])
        boot = [int(line.split()[1]) for line in open("/proc/stat") if line.startswith("btime")][0]
        uptime = float(open("/proc/uptime").read().split()[0])
        PROCESS_START = time.time() - (uptime - ticks / os.sysconf("SC_CLK_TCK"))
        del boot
    return time.time() - PROCESS_START


def memory():
    out = {}
    for line in open("/proc/self/status"):
        if line.startswith(("VmHWM", "RssAnon", "VmRSS")):
            out[line.split(":")[0]] = int(line.split()[1]) * 1024
    return out


def make_adapter(args):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM
    torch.manual_seed(0)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(args.model))
    model = get_peft_model(model, LoraConfig(r=args.r, lora_alpha=2 * args.r, lora_dropout=0.0, bias="none",
                                             target_modules="all-linear", task_type="CAUSAL_LM"), low_cpu_mem_usage=True)
    from safetensors.torch import save_file
    tensors, g = {}, torch.Generator().manual_seed(1)
    for name, p in model.named_parameters():
        if "lora_" not in name:
            continue
        scale = 1.0 / p.shape[1] ** 0.5 if "lora_A" in name else 0.01
        tensors[name.replace(".default", "")] = torch.randn(p.shape, generator=g) * scale
    os.makedirs(args.out, exist_ok=True)
    model.peft_config["default"].base_model_name_or_path = args.model
    model.peft_config["default"].save_pretrained(args.out)
    save_file(tensors, os.path.join(args.out, "adapter_model.safetensors"), metadata={"format": "pt"})


def train(args):
    import torch
    import transformers
    from peft import PeftModel
    from torch.utils.data import Dataset, SequentialSampler
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments
    imported = since_process_start()
    torch.set_num_threads(args.threads)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[args.dtype]
    rows = [json.loads(line) for line in open(args.data)]

    class Rows(Dataset):
        def __len__(self):
            return len(rows)

        def __getitem__(self, i):
            return rows[i]

    counts = {"real": [], "padded": [], "labels": []}

    def collate(batch):
        longest = max(len(r["input_ids"]) for r in batch)
        ids, mask, labels = [], [], []
        for r in batch:
            n, pad = len(r["input_ids"]), longest - len(r["input_ids"])
            ids.append(r["input_ids"] + [0] * pad)
            mask.append([1] * n + [0] * pad)
            labels.append(r.get("labels", r["input_ids"]) + [-100] * pad)
        counts["real"].append(sum(map(sum, mask)))
        counts["padded"].append(longest * len(batch))
        counts["labels"].append(sum(x != -100 for row in labels for x in row[1:]))
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask), "labels": torch.tensor(labels)}

    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype, attn_implementation=args.attn)
    model.config.use_cache = False
    model = PeftModel.from_pretrained(model, args.adapter, is_trainable=True)
    for name, p in model.named_parameters():  # adapters in f32, as ours; autocast does the rest in bf16
        if p.requires_grad:
            p.data = p.data.float()
    steps = {"ends": [], "begins": [], "loss": [], "grad_norm": [], "anon": 0}

    class Clock(TrainerCallback):
        def on_step_begin(self, a, state, control, **kw):
            steps["begins"].append(since_process_start())

        def on_step_end(self, a, state, control, **kw):
            steps["ends"].append(since_process_start())
            steps["anon"] = max(steps["anon"], memory()["RssAnon"])

        def on_log(self, a, state, control, logs=None, **kw):
            if logs and "loss" in logs:
                steps["loss"].append(logs["loss"])
                steps["grad_norm"].append(logs.get("grad_norm"))

    class InOrder(Trainer):
        def _get_train_sampler(self, *a, **kw):
            return SequentialSampler(self.train_dataset)

    targs = TrainingArguments(args.work, per_device_train_batch_size=args.batch, gradient_accumulation_steps=1,
                              max_steps=args.steps, learning_rate=args.lr, lr_scheduler_type="constant",
                              warmup_steps=0, weight_decay=0.0, max_grad_norm=1.0, optim="adamw_torch",
                              bf16=args.dtype == "bf16", use_cpu=True, gradient_checkpointing=args.gc, logging_steps=1,
                              report_to="none", save_strategy="no", dataloader_num_workers=0, seed=0,
                              remove_unused_columns=False, disable_tqdm=True)
    trainer = InOrder(model=model, args=targs, train_dataset=Rows(), data_collator=collate, callbacks=[Clock()])
    trainer.train()
    if args.save:
        model.save_pretrained(args.save)
    saved = since_process_start()
    json.dump({"imported": imported, "begins": steps["begins"], "ends": steps["ends"], "saved": saved,
               "loss": steps["loss"], "grad_norm": steps["grad_norm"], **{k: v[: args.steps] for k, v in counts.items()},
               "peak_rss_bytes": memory()["VmHWM"], "peak_anon_bytes": steps["anon"],
               "versions": {"torch": torch.__version__, "transformers": transformers.__version__}}, open(args.out, "w"))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="verb", required=True)
    m = sub.add_parser("make-adapter")
    m.add_argument("model"), m.add_argument("out"), m.add_argument("--r", type=int, default=16)
    t = sub.add_parser("train")
    for name in ("model", "data", "adapter", "out", "work"):
        t.add_argument("--" + name, required=True)
    t.add_argument("--dtype", default="f32"), t.add_argument("--attn", default="sdpa")
    t.add_argument("--gc", action="store_true"), t.add_argument("--save")
    t.add_argument("--batch", type=int, default=8), t.add_argument("--steps", type=int, default=3)
    t.add_argument("--threads", type=int, default=os.cpu_count()), t.add_argument("--lr", type=float, default=2e-4)
    sub.add_parser("import")
    args = p.parse_args()
    if args.verb == "make-adapter":
        make_adapter(args)
    elif args.verb == "train":
        train(args)
    else:
        import peft, torch, transformers  # noqa: F401
        print(json.dumps({"seconds": since_process_start(), **memory()}))


main()

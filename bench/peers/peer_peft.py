"""The peer: LoRA training with transformers, peft and the Trainer, on rows of token ids.

It trains as its users would, with a padding collator, and writes one JSON object: when each step ended (seconds since
this process began), loss and gradient norm of each step, tokens real, learned and padded, its versions. What it is given
(rows, order, first adapter, constant learning rate, clipping at 1, AdamW without decay) is what our program is given.

    PEER_PYTHON peer_peft.py --model DIR --rows rows.jsonl --adapter DIR --out DIR [--dtype bf16] [--checkpointing] ...
"""
import argparse
import json
import os
import time


def process_age():
    with open("/proc/self/stat") as f:
        start = int(f.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - start


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("--model")
    p.add_argument("--rows")
    p.add_argument("--adapter", help="folder with the adapter to start from")
    p.add_argument("--out", help="where the trained adapter and result.json go")
    p.add_argument("--dtype", choices=("f32", "bf16", "amp"), default="f32",
                   help="of the base weights; amp: f32 weights under autocast to bf16")
    p.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa")
    p.add_argument("--checkpointing", action="store_true")
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--steps", type=int, default=3)
    p.add_argument("--lr", type=float, default=2e-4)
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--import-only", action="store_true", help="what the libraries cost by themselves")
    return p.parse_args()


a = arguments()

import torch
import transformers
import peft
from torch.utils.data import Dataset, SequentialSampler
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

imported = process_age()
transformers.logging.set_verbosity_error()
if a.threads:
    torch.set_num_threads(a.threads)


class Rows(Dataset):
    def __init__(self, path):
        with open(path) as f:
            self.rows = [json.loads(line) for line in f]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


def collate(rows):
    """Pads on the right to the longest row of the batch, as the library's collators do."""
    width = max(len(r["input_ids"]) for r in rows)
    out = {"input_ids": [], "labels": [], "attention_mask": []}
    for r in rows:
        n = len(r["input_ids"])
        out["input_ids"].append(r["input_ids"] + [0] * (width - n))
        out["labels"].append(r["labels"] + [-100] * (width - n))
        out["attention_mask"].append([1] * n + [0] * (width - n))
    return {k: torch.tensor(v) for k, v in out.items()}


class PeerTrainer(Trainer):
    def _get_train_sampler(self, *args, **kwargs):
        return SequentialSampler(self.train_dataset)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        watch.losses[-1] += float((loss[0] if return_outputs else loss).detach())
        watch.tokens[-1][0] += int(inputs["attention_mask"].sum())
        watch.tokens[-1][1] += int((inputs["labels"][:, 1:] != -100).sum())
        watch.tokens[-1][2] += inputs["input_ids"].numel()
        return loss


class Watch(TrainerCallback):
    def __init__(self):
        self.losses, self.norms, self.ends, self.tokens = [], [], [], []

    def on_step_begin(self, args, state, control, **kwargs):
        self.losses.append(0.0)
        self.tokens.append([0, 0, 0])

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append(process_age())

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "grad_norm" in logs:
            self.norms.append(float(logs["grad_norm"]))


def memory():
    with open("/proc/self/status") as f:
        lines = dict(line.split(":", 1) for line in f)
    return {k: int(lines[k].split()[0]) * 1024 for k in ("VmHWM", "RssAnon")}


result = {"versions": {m.__name__: m.__version__ for m in (torch, transformers, peft)}, "imported": imported,
          "threads": torch.get_num_threads()}
if a.import_only:
    print(json.dumps({**result, "memory": memory()}))
    raise SystemExit

watch = Watch()
base = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.bfloat16 if a.dtype == "bf16" else torch.float32,
                                            attn_implementation=a.attention)
model = peft.PeftModel.from_pretrained(base, a.adapter, is_trainable=True)  # adapters stay in f32
types = {str(p.dtype) for p in model.parameters() if p.requires_grad}
assert types == {"torch.float32"}, types
model.config.use_cache = False
if a.checkpointing:
    model.enable_input_require_grads()
trainer = PeerTrainer(
    model=model,
    args=TrainingArguments(
        a.out, per_device_train_batch_size=a.batch, gradient_accumulation_steps=1, max_steps=a.steps,
        learning_rate=a.lr, lr_scheduler_type="constant", warmup_steps=0, weight_decay=0.0, max_grad_norm=1.0,
        optim="adamw_torch", bf16=a.dtype == "amp", use_cpu=True, gradient_checkpointing=a.checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if a.checkpointing else None, logging_steps=1,
        logging_nan_inf_filter=False, report_to="none", save_strategy="no", dataloader_num_workers=0,
        dataloader_drop_last=False, remove_unused_columns=False, disable_tqdm=True, seed=0),
    train_dataset=Rows(a.rows), data_collator=collate, callbacks=[watch])
result["opened"] = process_age()
trainer.train()
result["trained"] = process_age()
model.save_pretrained(a.out)
result["saved"] = process_age()
result.update(step_ends=watch.ends, losses=watch.losses, grad_norms=watch.norms, tokens=watch.tokens, memory=memory())
with open(os.path.join(a.out, "result.json"), "w") as f:
    json.dump(result, f)

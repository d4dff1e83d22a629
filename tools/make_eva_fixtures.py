#!/usr/bin/env python3
"""Makes tests/golden/eva/: what peft's EVA (arXiv 2410.07170) begins with, for tests/recipes/test_first_look.c.

    python tools/make_eva_fixtures.py [--out DIR]

    rows.jsonl, pairs.jsonl, words.jsonl   token rows, some labels -100; texts for encoder and decoder; words with classes
    word_ids/            a BERT tokenizer for the latter two: one id for each word
    <case>.json          section, batch size, ranks and alphas by module, number of batches until all had settled
    <case>.safetensors   A by module: peft's get_eva_state_dict on the same batches

peft decomposes each batch with torch.svd_lowrank, which is approximate and random. Here it takes torch.linalg.svd in its
place, and what that changes is checked: ranks and batches are the same, directions nearly so (largest difference printed)."""

import argparse
import itertools
import json
import os

import peft
import torch
import transformers
from peft.tuners.lora import eva
from peft.utils.incremental_pca import IncrementalPCA
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "..", "tests", "golden")
LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
T5 = ["q", "k", "v", "o", "wi", "wo"]
BERT = ["query", "key", "value", "output.dense", "intermediate.dense"]
BASES = {
    "llama": dict(path="methods/base_llama", rows="rows", targets=LLAMA, task="CAUSAL_LM"),
    "t5": dict(path="parity/t5_cross", rows="pairs", targets=T5, task="SEQ_2_SEQ_LM"),
    "t5_prompt": dict(path="methods/base_t5_tied", rows="pairs", targets=["q", "k", "v", "o"], task="SEQ_2_SEQ_LM"),
    "bert": dict(path="classes/bert_token", rows="words", targets=BERT, task="TOKEN_CLS"),
}
CASES = [
    dict(name="plain", base="llama", batch=8, r=4, alpha=8, eva={}),
    # peft divides the vectors of an input once for every layer that shares it, in place: here none is shared
    dict(name="even", base="llama", batch=24, r=4, alpha=8, eva=dict(rho=1.0, whiten=True), targets=["o_proj", "down_proj"]),
    dict(name="dropped", base="llama", batch=8, r=1, alpha=6, eva=dict(rho=9.0, use_label_mask=False)),
    dict(name="fixed_alpha", base="llama", batch=6, r=3, alpha=6, eva=dict(rho=2.5, adjust_scaling_factors=False)),
    dict(name="early", base="llama", batch=5, r=4, alpha=8, eva=dict(tau=0.8)),
    dict(name="without", base="llama", batch=8, r=4, alpha=8, eva=dict(label_mask_value=7)),
    dict(name="patterns", base="llama", batch=12, r=3, alpha=6, eva=dict(rho=1.5), rank_pattern={"o_proj": 5, "layers.1.*.down_proj": 2}),
    dict(name="t5", base="t5", batch=8, r=3, alpha=6, eva={}),
    # on top of frozen adapters: a LoRA, and learned rows before a text or a source
    dict(name="on_lora", base="llama", batch=8, r=3, alpha=6, eva={}, below="methods/lora/end"),
    dict(name="on_prompt", base="llama", batch=8, r=3, alpha=6, eva={}, below="methods/prompt_tuning/end"),
    dict(name="on_prompt_t5", base="t5_prompt", batch=8, r=3, alpha=6, eva={}, below="methods/prompt_tuning_t5/end"),
    dict(name="bert", base="bert", batch=8, r=4, alpha=6, eva={}),
]


def make_rows(gen):
    rows = []
    for _ in range(24):
        n = int(torch.randint(10, 20, (1,), generator=gen))
        ids = torch.randint(3, 64, (n,), generator=gen).tolist()
        prompt = int(torch.randint(2, 6, (1,), generator=gen))
        labels = [-100] * prompt + ids[prompt:]
        labels[prompt + 2] = -100  # a gap
        rows.append(dict(input_ids=ids, labels=labels))
    return rows


def draw(gen, lo, hi):
    return torch.randint(5, 64, (int(torch.randint(lo, hi, (1,), generator=gen)),), generator=gen).tolist()


def text(ids):
    return " ".join(f"w{i}" for i in ids)


def padded(rows, key, value):
    n = max(len(r[key]) for r in rows)
    return torch.tensor([r[key] + [value] * (n - len(r[key])) for r in rows])


def batches(rows, size):
    out = []
    for i in range(0, len(rows), size):
        part = rows[i : i + size]
        ids = padded(part, "input_ids", 0)
        mask = torch.tensor([[1] * len(r["input_ids"]) + [0] * (ids.shape[1] - len(r["input_ids"])) for r in part])
        out.append(dict(input_ids=ids, attention_mask=mask, labels=padded(part, "labels", -100)))
    return out


def of_pairs(model_input, config):
    """Rows of encoder and decoder, which peft's own function does not tell apart."""
    labels = model_input["labels"]
    return dict(encoder=model_input["attention_mask"].bool().nonzero(), decoder=(labels != config.eva_config.label_mask_value).nonzero())


def rows_of_pairs(layer_input, model_input, name):
    source = name.replace("base_model.model.", "").startswith("encoder") or ".EncDecAttention.k" in name or ".EncDecAttention.v" in name
    return layer_input[0][model_input["encoder" if source else "decoder"].T.unbind()]


def in_order(a, names):
    """Of layers with the same input peft gives the first most, and the others theirs in no order (an argsort of equal
    numbers): here the earlier one has more."""
    out, names = {}, [n for n in names if n in a]
    for n in names:
        kin = [k for k in names if a[k].shape[1] == a[n].shape[1] and (k == n or min(len(a[k]), len(a[n])) > 0 and bool((a[k][0] == a[n][0]).all()))]
        most = max((a[k] for k in kin), key=len)
        out[n] = most[: sorted((len(a[k]) for k in kin), reverse=True)[kin.index(n)]]
    return out


def with_prompt(prompt, pairs):
    """A forward pass with these rows before each text, and peft's functions for the rows that are looked at, shifted by as many."""
    n = prompt.shape[0]

    def forward(model, inputs):
        inputs = dict(inputs)
        ids = inputs.pop("input_ids")
        inputs["inputs_embeds"] = torch.cat([prompt.expand(len(ids), -1, -1), model.get_input_embeddings()(ids)], 1)
        inputs["attention_mask"] = torch.cat([torch.ones(len(ids), n, dtype=torch.long), inputs["attention_mask"]], 1)
        if not pairs:
            inputs.pop("labels")
        model(**inputs)

    def rows(model_input, config):
        shift = torch.tensor([0, n])
        if pairs:
            at = of_pairs(model_input, config)
            return dict(at, encoder=at["encoder"] + shift)
        return eva.prepare_model_inputs_fn_language_modeling(model_input, config) + shift

    return forward, rows


def run(c, base, data, exact):
    kind = dict(CAUSAL_LM=transformers.AutoModelForCausalLM, SEQ_2_SEQ_LM=transformers.AutoModelForSeq2SeqLM,
                TOKEN_CLS=transformers.AutoModelForTokenClassification)[base["task"]]
    model = kind.from_pretrained(os.path.join(GOLDEN, base["path"]), dtype=torch.float32)
    config = peft.LoraConfig(task_type=base["task"], r=c["r"], lora_alpha=c["alpha"], target_modules=c["targets"], init_lora_weights="eva",
                             rank_pattern=c.get("rank_pattern", {}), eva_config=peft.EvaConfig(**c["eva"]))
    lowrank = IncrementalPCA._svd_fn_lowrank
    if exact:
        IncrementalPCA._svd_fn_lowrank = lambda self, x: torch.linalg.svd(x.double(), full_matrices=False)
    calls, plain, more = [0], eva.forward_fn_dict, {}
    if base["task"] == "SEQ_2_SEQ_LM":
        more = dict(prepare_model_inputs_fn=of_pairs, prepare_layer_inputs_fn=rows_of_pairs)
    below = os.path.join(GOLDEN, c["below"]) if "below" in c else None
    if below is not None and "lora" in below:
        model = peft.PeftModel.from_pretrained(model, below).merge_and_unload()
    elif below is not None:
        prompt = load_file(os.path.join(below, "adapter_model.safetensors"))["prompt_embeddings"]
        n = json.load(open(os.path.join(below, "adapter_config.json")))["num_virtual_tokens"]
        plain, more["prepare_model_inputs_fn"] = with_prompt(prompt[:n], base["task"] == "SEQ_2_SEQ_LM")

    def forward(model, inputs):
        calls[0] += 1
        return plain(model, inputs)

    model = peft.get_peft_model(model, config)
    sd = peft.get_eva_state_dict(model, batches(data, c["batch"]), forward_fn=forward, show_progress_bar=False, **more)
    IncrementalPCA._svd_fn_lowrank = lowrank
    a = {n.replace("base_model.model.", ""): v.clone() for n, v in sd.items()}
    a = in_order(a, [n.replace("base_model.model.", "") for n, _ in model.named_modules()])
    peft.initialize_lora_eva_weights(model, eva_state_dict={"base_model.model." + n: v.clone() for n, v in a.items()})
    lora = model.peft_config["default"]
    alphas = {}
    for n, m in model.named_modules():
        if isinstance(m, peft.tuners.lora.Linear):
            alphas[n.replace("base_model.model.", "")] = m.lora_alpha["default"]
            assert m.lora_B["default"].weight.abs().max() == 0
    assert all(n in alphas for n, v in a.items() if v.shape[0] > 0), lora
    return a, alphas, calls[0] - 1


def make_case(c, data, out):
    base = BASES[c["base"]]
    c.setdefault("targets", base["targets"])
    a, alphas, n = run(c, base, data[base["rows"]], True)
    near, near_alphas, near_n = run(c, base, data[base["rows"]], False)
    ranks = {k: v.shape[0] for k, v in a.items()}
    off = max((float((a[k] - near[k]).norm(dim=1).max()) for k in a if a[k].shape == near[k].shape and a[k].shape[0] > 0), default=0)
    same = ranks == {k: v.shape[0] for k, v in near.items()} and n == near_n
    print(c["name"], f"{n} batches ({near_n} with svd_lowrank), ranks {sorted(ranks.values())}, svd_lowrank is off by {off:.2g}", "" if same else "OTHER RANKS OR BATCHES")
    save_file({k: v.float().contiguous() for k, v in a.items() if v.shape[0] > 0}, os.path.join(out, c["name"] + ".safetensors"))
    with open(os.path.join(out, c["name"] + ".json"), "w") as f:
        json.dump({**c, "model": base["path"], "data": base["rows"], "task": base["task"], "batches": n, "ranks": ranks, "alphas": alphas}, f, indent=1)
        f.write("\n")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--out", default=os.path.join(GOLDEN, "eva"))
    out = p.parse_args().out
    os.makedirs(out, exist_ok=True)
    torch.set_num_threads(1)
    gen = torch.Generator().manual_seed(7)
    data, files = dict(rows=make_rows(gen), pairs=[], words=[]), dict(pairs=[], words=[])
    for _ in range(24):
        source, target = draw(gen, 4, 12), draw(gen, 3, 8)
        data["pairs"].append(dict(input_ids=[2] + source + [3], labels=[2] + target + [3]))
        files["pairs"].append(dict(source=text(source), target=text(target)))
        ids = draw(gen, 4, 12)
        classes = torch.randint(0, 2, (len(ids),), generator=gen).tolist()
        data["words"].append(dict(input_ids=[2] + ids + [3], labels=[-100] + classes + [-100]))
        files["words"].append(dict(words=text(ids).split(), tags=classes))
    for name, rows in {**data, **files}.items():
        with open(os.path.join(out, name + ".jsonl"), "w") as f:
            for row in rows:
                f.write(json.dumps(row) + "\n")
    os.makedirs(os.path.join(out, "word_ids"), exist_ok=True)  # a BERT tokenizer with one id for each word
    with open(os.path.join(out, "word_ids", "vocab.txt"), "w") as f:
        f.write("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + [f"w{i}" for i in range(5, 64)]) + "\n")
    with open(os.path.join(out, "word_ids", "tokenizer_config.json"), "w") as f:
        json.dump(dict(tokenizer_class="BertTokenizer", do_lower_case=False, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]",
                       unk_token="[UNK]", mask_token="[MASK]"), f)
        f.write("\n")
    for c in CASES:
        make_case(c, data, out)


if __name__ == "__main__":
    main()

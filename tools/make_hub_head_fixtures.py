#!/usr/bin/env python3
"""Makes tests/golden/hub_heads/: adapters with flexible heads as AdapterHub's `adapters` 1.3 saves them (BertAdapterModel and its
kin), on the bases of tests/golden/methods/.

    python tools/make_hub_head_fixtures.py [--out DIR]

Needs adapters and its transformers (4.57). Never run by the build or the tests. Each folder is what save_adapter writes, with
case.json beside it: base, samples, and the logits of their classes.
"""

import argparse
import json
import os
import shutil
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

import make_method_fixtures as methods  # sets the hash seed, and torch to one thread

import adapters
import torch
from adapters import BertAdapterModel, RobertaAdapterModel, SeqBnConfig, XLMRobertaAdapterModel

LABELS = {0: "bad", 1: "fair", 2: "good"}
CASES = [
    dict(name="bert_two_layers", base="base_bert", model=BertAdapterModel, add=lambda m: m.add_classification_head("sst", num_labels=3, id2label=LABELS)),
    dict(name="bert_pooled", base="base_bert", model=BertAdapterModel,
         add=lambda m: m.add_classification_head("sst", num_labels=3, layers=1, activation_function=None, use_pooler=True)),
    dict(name="roberta_two_layers", base="base_roberta", model=RobertaAdapterModel, add=lambda m: m.add_classification_head("sst", num_labels=3, id2label=LABELS)),
    dict(name="xlmr_tagging", base="base_xlmr", model=XLMRobertaAdapterModel, add=lambda m: m.add_tagging_head("sst", num_labels=3, id2label=LABELS)),
    dict(name="bert_three_layers", base="base_bert", model=BertAdapterModel, add=lambda m: m.add_classification_head("sst", num_labels=3, layers=3)),
]


def make(c, out, bases):
    folder = os.path.join(out, c["name"])
    shutil.rmtree(folder, ignore_errors=True)
    gen = torch.Generator().manual_seed(sum(map(ord, c["name"])))
    model = c["model"].from_pretrained(os.path.join(bases, c["base"]))
    model.add_adapter("sst", config=SeqBnConfig(reduction_factor=8))
    c["add"](model)
    model.set_active_adapters("sst")
    for n, p in sorted(model.named_parameters()):
        if ".sst." in n:
            p.data = torch.randn(p.shape, generator=gen) * (0.2 if p.dim() == 1 else 0.8 / p.shape[-1] ** 0.5)
    tokens = "tagging" in c["name"]
    samples, logits = methods.make_batches(gen, "TOKEN_CLS" if tokens else "SEQ_CLS")[0], []
    with torch.no_grad():
        for s in samples:
            z = model.eval()(torch.tensor([s["ids"]])).logits[0]
            logits += z[None].tolist() if not tokens else z[[i for i, k in enumerate(s["classes"]) if k >= 0]].tolist()
    os.makedirs(folder)
    model.save_adapter(folder, "sst", use_safetensors=True)
    for name in ("adapter_config.json", "head_config.json"):
        path = os.path.join(folder, name)
        json.dump({**json.load(open(path)), "model_name": c["base"]}, open(path, "w"), indent=2, sort_keys=True)
    info = dict(base=c["base"], task="TOKEN_CLS" if tokens else "SEQ_CLS", adapters=adapters.__version__, batches=[samples], logits=logits)
    methods.dump(folder, info)
    print(c["name"], sorted(os.listdir(folder)))


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--out", default=os.path.join(methods.ROOT, "tests/golden/hub_heads"))
    a = ap.parse_args()
    for c in CASES:
        make(c, a.out, os.path.join(methods.ROOT, "tests/golden/methods"))


if __name__ == "__main__":
    main()

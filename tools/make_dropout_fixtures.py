#!/usr/bin/env python3
"""Makes tests/golden/dropout/: transformers in train mode, its dropouts drawing our masks, for the C tests to compare with.

    python tools/make_dropout_fixtures.py [--only NAME ...] [--out DIR]

Needs torch, transformers 5, peft, safetensors, numpy. Never run by the build or the tests. Folders are those of
make_parity_fixtures.py, without logits; case.json has the seed of the masks.

torch.nn.functional.dropout is replaced: what transformers hands it is multiplied by a mask made from the words of
src/ops/matmul/dropout.h and src/nn/base_dropout.h, written once more here. So where a dropout stands, whose rate it has and what
it is scaled by are transformers' own, and the losses of both agree only if those agree. For each rate of the configuration the
losses without it (computed here, too) must differ by at least 100 times their tolerance.
"""

import argparse
import os
import re
import shutil

import make_parity_fixtures as parity  # sets the hash seed, and torch to one thread
import make_class_fixtures as classes

import numpy as np
import torch
import transformers
import peft
from peft import PeftModel
from transformers import AutoConfig

from parity_cases import bloom, common, falcon, gpt2, gpt_neox, opt, phi, phi3, stablelm, t5
from parity_cases.common import rope

STEPS = 10
SEED = 0x1234567800000009

# ---- masks: src/base/rng.h, src/ops/matmul/dropout.h --------------------------------------------------------------------

ROWS, SCORES = 2, 8  # pf_rng_use


def philox(key, c0, c1, c2, c3):
    """Philox4x32-10 of arrays of counters that broadcast."""
    c = [np.asarray(x, dtype=np.uint64) for x in np.broadcast_arrays(c0, c1, c2, c3)]
    k0, k1 = key
    low = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k0), p1 & low, (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k1), p0 & low]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def make_key(seed, use, salt):
    r = philox((seed & 0xFFFFFFFF, seed >> 32), use, salt & 0xFFFFFFFF, salt >> 32, 0x70656674)
    return int(r[0]), int(r[1])


def draws(key, n, c1, c2, c3):
    """Draws 0..n-1 along a new last axis: eight of each call, 16 bits wide."""
    octet = np.arange((n + 7) // 8)
    words = philox(key, octet, *(np.asarray(c)[..., None] for c in (c1, c2, c3)))
    out = np.stack([w >> np.uint64(16 * half) & np.uint64(0xFFFF) for w in words for half in range(2)], axis=-1)
    return out.reshape(*out.shape[:-2], -1)[..., :n]


def mask(d, p):
    return torch.from_numpy((d >= min(int(p * 65536 + 0.5), 65535)).astype(np.float32)) / (1 - p)


# ---- places: src/nn/base_dropout.h --------------------------------------------------------------------------------------

EMBEDDING, ATTENTION, MLP, CROSS, INNER, NORM, HEAD_INPUT, HEAD = range(8)
ENCODER = 64
SELF, SELF_ENCODER, OVER_SOURCE = range(3)

# modules of nn.Dropout by how their names end; several places: in the order of the calls of a pass
PLACES = {
    "bert": [(r"embeddings\.dropout", [EMBEDDING]), (r"attention\.output\.dropout", [ATTENTION]), (r"\d\.output\.dropout", [MLP]),
             (r"^dropout", [HEAD])],
    "roberta": [(r"embeddings\.dropout", [EMBEDDING]), (r"attention\.output\.dropout", [ATTENTION]), (r"\d\.output\.dropout", [MLP]),
                (r"classifier\..*dropout", [HEAD_INPUT, HEAD]), (r"^dropout", [HEAD])],
    "gpt2": [(r"transformer\.drop", [EMBEDDING]), (r"resid_dropout", [ATTENTION]), (r"mlp\.dropout", [MLP]), (r"^dropout", [HEAD])],
    "gpt_neox": [(r"emb_dropout", [EMBEDDING]), (r"post_attention_dropout", [ATTENTION]), (r"post_mlp_dropout", [MLP]),
                 (r"^dropout", [HEAD])],
    "phi": [(r"embed_dropout", [EMBEDDING]), (r"resid_dropout", [ATTENTION, MLP])],
    "phi3": [(r"resid_attn_dropout", [ATTENTION]), (r"resid_mlp_dropout", [MLP])],
    "stablelm": [(r"layers\.\d+\.dropout", [MLP])],
    "t5": [(r"DenseReluDense\.dropout", [INNER]), (r"encoder\.dropout|decoder\.dropout", [EMBEDDING, NORM]),
           (r"layer\.0\.dropout", [ATTENTION]), (r"decoder\.block\.\d+\.layer\.1\.dropout", [CROSS]), (r"layer\.[12]\.dropout", [MLP])],
    "llama": [(r"^dropout", [HEAD])],
}
# the functional ones of a layer, likewise
FUNCTIONAL = {"bloom": [ATTENTION, MLP], "opt": [ATTENTION, MLP], "falcon": [MLP], "falcon_rw": [ATTENTION, MLP]}


class Injected:
    """Dropout of a model, while in a `with`."""

    def __init__(self, model, kind):
        self.model, self.kind, self.step, self.used = model, kind, 0, set()
        self.inner = classes.inner(model)
        self.handles = []
        for name, m in self.inner.named_modules():
            if isinstance(m, torch.nn.Dropout):
                self.handles.append(m.register_forward_pre_hook(self.note("module", name)))
                self.handles.append(m.register_forward_hook(self.forget))
            if re.search(r"Attention$", type(m).__name__):
                self.handles.append(m.register_forward_pre_hook(self.note("attention", name)))
            if re.search(r"(Layer|Block)$", type(m).__name__) and re.search(r"\.\d+$", name):
                self.handles.append(m.register_forward_pre_hook(self.note("layer", name)))

    def note(self, what, name):
        def hook(module, args):
            setattr(self, what, name)
            if what == "layer":
                self.calls["functional"] = 0
                self.shape = args[0].shape

        return hook

    def forget(self, module, args, out):
        self.module = None

    def begin(self, step):
        self.step, self.module, self.calls = step, None, {}

    def __enter__(self):
        self.right = torch.nn.functional.dropout, torch.nn.functional.scaled_dot_product_attention
        torch.nn.functional.dropout = self.drop
        torch.nn.functional.scaled_dot_product_attention = self.attend
        return self

    def __exit__(self, *exc):
        torch.nn.functional.dropout, torch.nn.functional.scaled_dot_product_attention = self.right

    def attend(self, q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, **kw):
        z = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        if attn_mask is not None:
            z = z.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else z + attn_mask
        elif is_causal:
            z = z + torch.full(z.shape[-2:], -torch.inf).triu(1)
        return self.drop(torch.softmax(z, -1), dropout_p) @ v

    def drop(self, x, p=0.5, training=True, inplace=False):
        if not training or p == 0:
            return x
        return x * (self.of_scores(x, p) if x.dim() == 4 else self.of_rows(x, p))

    def of_scores(self, x, p):
        B, H, Q, K = x.shape
        layer = int(re.search(r"\.(\d+)\.", self.attention)[1])
        kind = OVER_SOURCE if "EncDec" in self.attention else SELF_ENCODER if self.attention.startswith("encoder.block") else SELF
        self.used.add(("scores", kind, layer))
        b, h, q = np.ogrid[:B, :H, :Q]
        return mask(draws(make_key(SEED, SCORES, self.step), K, q, b, (kind << 30) + (layer << 16) + h), p)

    def of_rows(self, x, p):
        name = self.module
        if name is None:
            n = self.calls["functional"]
            place, name = FUNCTIONAL[self.kind][n], self.layer
            self.calls["functional"] = n + 1
        else:
            n = self.calls.get(name, 0)
            self.calls[name] = n + 1
            place = next(v for pattern, v in PLACES[self.kind] if re.search(f"({pattern})$", name))[n]
        if name.startswith("encoder.") and self.kind == "t5":
            place += ENCODER
        layer = re.search(r"\.(\d+)(\.|$)", name)
        layer = int(layer[1]) if layer else -1
        self.used.add(("rows", place, layer))
        key = make_key(SEED, ROWS, self.step)
        where = (1 << 31) + ((layer + 1) << 8) + place
        if x.dim() == 2 and self.kind == "opt":  # rows of all samples, one after the other
            return self.rows(key, self.shape, where, p).reshape(x.shape)
        if x.dim() == 2:  # first rows
            return mask(draws(key, x.shape[1], 0, np.arange(x.shape[0]), where), p)
        return self.rows(key, x.shape, where, p)

    @staticmethod
    def rows(key, shape, where, p):
        b, t = np.ogrid[: shape[0], : shape[1]]
        return mask(draws(key, shape[2], t, b, where), p)


# ---- cases --------------------------------------------------------------------------------------------------------------


def lm(kind, keys, case):
    """keys: the rates of the configuration, for each of which the losses without it are computed."""
    return dict(case, kind=kind, keys=keys, task=None)


def cls(name, kind, keys, model_type, config, task, base="own", **kw):
    config = {**config, **keys}
    return dict(classes.case(name, model_type, config, task, "", [], base=base, **kw), kind=kind, keys=keys)


NEOX = dict(hidden_dropout=0.15, attention_dropout=0.2)
PHI = dict(resid_pdrop=0.15, embd_pdrop=0.1, attention_dropout=0.2)
BERT = dict(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.2, classifier_dropout=0.3)
CASES = [
    lm("gpt2", k := dict(embd_pdrop=0.1, attn_pdrop=0.25, resid_pdrop=0.15), gpt2.gpt2("gpt2", "GPT-2", None, **k)),
    lm("t5", k := dict(dropout_rate=0.1), t5.t5("t5", "T5", None, **k)),
    lm("t5", k := dict(dropout_rate=0.15), t5.t5("t5_gated", "FLAN-T5", None, feed_forward_proj="gated-gelu", untied=True,
                                                tie_word_embeddings=False, **k)),
    lm("llama", k := dict(attention_dropout=0.2), common.case("llama", "llama", "Llama", None, rope_parameters=rope(), **k)),
    lm("phi3", k := dict(attention_dropout=0.2, resid_pdrop=0.15), phi3.case("phi3", "phi3", "Phi-3", None, rope_parameters=rope(), **k)),
    lm("gpt_neox", NEOX, gpt_neox.neox("neox", "GPT-NeoX, Pythia", None, **gpt_neox.rope(0.25), **NEOX)),
    lm("bloom", NEOX, bloom.bloom("bloom", "BLOOM", None, **NEOX)),
    lm("opt", k := dict(dropout=0.1, attention_dropout=0.2), opt.opt("opt", "OPT", None, **k)),
    lm("phi", PHI, phi.phi("phi", "Phi-2", None, **phi.rope(0.5), **PHI)),
    lm("stablelm", NEOX, stablelm.stablelm("stablelm", "StableLM", None, **stablelm.rope(0.25), **NEOX)),
    lm("falcon", k := dict(hidden_dropout=0.15), falcon.falcon("falcon", "Falcon: one mask for both branches, none for scores that turn", None,
                                                              attention_dropout=0.3, **k)),
    lm("falcon_rw", NEOX, falcon.falcon("falcon_rw", "Falcon with ALiBi, one branch after the other", None, attention="sdpa", alibi=True,
                                        multi_query=False, parallel_attn=False, bias=True, **NEOX)),
    cls("bert_seq", "bert", BERT, "bert", classes.BERT, "SEQ_CLS", targets=classes.QV),
    cls("bert_token", "bert", BERT, "bert", classes.BERT, "TOKEN_CLS", base="bare", targets=classes.QV),
    cls("roberta_seq", "roberta", BERT, "roberta", {**classes.BERT, "type_vocab_size": 1, "pad_token_id": 1}, "SEQ_CLS", base="masked",
        targets=classes.QV),
    cls("llama_token", "llama", dict(attention_dropout=0.1, classifier_dropout=0.2), "llama", classes.LLAMA, "TOKEN_CLS", base="bare"),
]


# ---- computing ----------------------------------------------------------------------------------------------------------


def load(c, folder, adapter, **rates):
    config = AutoConfig.from_pretrained(folder)
    for k, v in rates.items():
        setattr(config, k, v)
    kw = dict(dtype=torch.float32, attn_implementation=c.get("attention", "eager"))
    if c["task"] is None:
        model = parity.auto_class(config).from_pretrained(folder, config=config, **kw)
    else:
        config.num_labels = c["labels"]
        model = classes.AUTO[c["task"]].from_pretrained(folder, config=config, **kw)
    return PeftModel.from_pretrained(model, adapter, is_trainable=True).train()


def loss_of(c, injected):
    def loss(model, samples):
        injected.begin(loss.step)
        loss.step += 1
        with injected:
            return parity.step_loss(model, samples, False) if c["task"] is None else classes.step_loss(c, model, samples)

    loss.step = 0
    return loss


def losses(c, folder, adapter, batches, **rates):
    model = load(c, folder, adapter, **rates)
    f = loss_of(c, Injected(model, c["kind"]))
    with torch.no_grad():
        return [float(f(model, b)) for b in batches]


def make_case(c, out):
    folder = os.path.join(out, c["name"])
    adapter = os.path.join(folder, "adapter")
    shutil.rmtree(folder, ignore_errors=True)
    gen = torch.Generator().manual_seed(sum(map(ord, c["name"])))
    torch.manual_seed(1)
    if c["task"] is None:
        parity.attention = c["attention"]
        parity.write_model(c, folder, gen)
        batches = parity.make_batches(gen, c["lengths"], steps=STEPS, seq2seq=c["seq2seq"])
        parity.add_lora(parity.load(folder), adapter, c["lora"], gen, c["name"], c["targets"])
    else:
        classes.write_base(c, folder, gen)
        classes.add_lora(c, classes.load(c, folder), adapter, gen)
        batches = classes.make_batches(c, gen)
    right = losses(c, folder, adapter, batches)
    off = {}
    for key in c["keys"]:
        without = losses(c, folder, adapter, batches, **{key: 0.0})
        off[key] = max(abs(a - b) / b for a, b in zip(without, right))
        assert off[key] > parity.OFF_FACTOR * parity.TOL_LOSS, (c["name"], key, off[key])
    model = load(c, folder, adapter)
    optim = dict(parity.OPTIM, lr=0.01, steps=STEPS, max_grad_norm=1.0)
    injected = Injected(model, c["kind"])
    log, grads, after = parity.train(model, batches, False, optim, loss_of(c, injected))
    info = dict(what=f"dropout of the base: {c['what'] or c['task']}", method="lora", dropout_seed=str(SEED), transformers=transformers.__version__, peft=peft.__version__,
                torch=torch.__version__, trainable=parity.trainable_line(model), off=off, optim=optim, steps=log, batches=batches)
    if c["task"] is not None:
        info["task"] = c["task"]
    tensors = {**{"grad." + n: t for n, t in parity.as_rows(model, grads).items()}, **{"after." + n: t for n, t in parity.as_rows(model, after).items()}}
    parity.save_case(folder, info, tensors)
    print(f"{c['name']:12} {len(injected.used)} places; off: {off}")


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--only", nargs="*")
    ap.add_argument("--out", default=os.path.join(parity.ROOT, "tests/golden/dropout"))
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    for c in CASES:
        if not a.only or c["name"] in a.only:
            make_case(c, a.out)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Makes tests/golden/classes/: SEQ_CLS and TOKEN_CLS as transformers and peft compute them, for the C tests to compare with.

    python tools/make_class_fixtures.py [--only NAME ...] [--out DIR]

Needs torch, transformers 5, peft, safetensors. Never run by the build or the tests. Folders are those of make_parity_fixtures.py,
but for the samples: `classes` has the class of each token (-1: none), `second_from` where the second of two texts begins, `values`
the numbers that are the target of a text where `problem` is not single_label_classification (classes has a 0 where their entry stands).
Logits stand one row per class that is told, samples one after the other.

Every case names features. With each of them switched off (computed here, too) logits and loss must move by at least 100 times
their tolerance.
"""

import argparse
import os
import shutil

import make_parity_fixtures as parity  # sets the hash seed, and torch to one thread

import torch
import torch.nn.functional as F
import transformers
import peft
from peft import LoraConfig, PeftModel, get_peft_model
from transformers.loss.loss_utils import ForSequenceClassificationLoss
from transformers.trainer_pt_utils import LabelSmoother
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoModelForTokenClassification

STEPS = 10
VOCAB = parity.VOCAB
PAD = 0

LLAMA = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=1,
             eos_token_id=2, pad_token_id=PAD, classifier_dropout=0.0)
BERT = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=64, type_vocab_size=2, layer_norm_eps=1e-5, pad_token_id=PAD, hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0, classifier_dropout=0.0)

AUTO = dict(SEQ_CLS=AutoModelForSequenceClassification, TOKEN_CLS=AutoModelForTokenClassification)


# ---- switching a feature off -------------------------------------------------------------------------------------------


def inner(model):
    return model.get_base_model() if isinstance(model, PeftModel) else model


def zero(pattern):
    def patch(model):
        hit = [p for n, p in model.named_parameters() if pattern in n]
        assert hit, pattern
        for p in hit:
            p.data.zero_()

    return patch


def replace(name, forward):
    """Modules whose name ends so answer otherwise."""

    def patch(model):
        hit = [m for n, m in model.named_modules() if n.endswith(name)]
        assert hit, name
        for m in hit:
            m.forward = forward(m)

    return patch


def capped(model):
    score = inner(model).score
    forward = score.forward
    score.forward = lambda x: 0.5 * torch.tanh(forward(x) / 0.5)


def causal(model):
    """Rows no longer see what comes after them."""
    for m in model.modules():
        if type(m).__name__.endswith("SelfAttention"):
            m.is_causal = True
    base = inner(model)
    name = base.base_model_prefix
    body = getattr(base, name)
    make = body._create_attention_masks

    def masks(attention_mask, encoder_attention_mask, embedding_output, *a, **k):
        self_mask, cross = make(attention_mask, encoder_attention_mask, embedding_output, *a, **k)
        n = embedding_output.shape[1]
        above = torch.triu(torch.full((n, n), -1e30), 1)[None, None]
        keep = attention_mask[:, None, None, :].float() if attention_mask is not None else torch.ones(1, 1, 1, n)
        return above + (1 - keep) * -1e30, cross

    body._create_attention_masks = masks


# ---- cases -------------------------------------------------------------------------------------------------------------


def case(name, model_type, config, task, what, off, base="own", labels=3, targets=("q_proj", "v_proj"), pairs=False, fan_in=False,
         problem=None, said=None, smoothing=0.0, weights=None, **changes):
    return dict(name=name, model_type=model_type, config={**config, **changes}, task=task, what=what, off=off, base=base, labels=labels,
                targets=list(targets), pairs=pairs, fan_in=fan_in, problem=problem, said=said, smoothing=smoothing, weights=weights)


QV = ("query", "value")
GPT2 = dict(vocab_size=VOCAB, n_embd=32, n_inner=48, n_layer=2, n_head=4, n_positions=64, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
            pad_token_id=PAD, bos_token_id=1, eos_token_id=2)
OPT = dict(vocab_size=VOCAB, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64,
           word_embed_proj_dim=24, do_layer_norm_before=False, dropout=0.0, attention_dropout=0.0, pad_token_id=PAD, bos_token_id=1,
           eos_token_id=2)
CASES = [
    case("llama_seq", "llama", LLAMA, "SEQ_CLS", "the last token's row; no bias; a base without a head",
         [zero("score"), "first row"], base="causal"),
    case("llama_token", "llama", LLAMA, "TOKEN_CLS", "a class per token, with a bias; a bare base", [zero("score.modules_to_save.default.bias")],
         base="bare"),
    case("gpt2_token", "gpt2", GPT2, "TOKEN_CLS", "a classifier with a bias beside Conv1D layers; a base without a head",
         [zero("classifier.modules_to_save.default.bias")], base="causal", targets=("c_attn", "c_fc")),
    case("opt_seq", "opt", OPT, "SEQ_CLS", "a head as narrow as the embedding", [zero("score"), "first row"], base="causal"),
    case("qwen3_own", "qwen3", {**LLAMA, "head_dim": 8}, "SEQ_CLS", "a base that has the head, and LoRA on all linear layers",
         [zero("score"), "first row"], targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), labels=2),
    case("bert_seq", "bert", BERT, "SEQ_CLS", "a base that has the head; the first row through the pooler; two texts",
         [zero("pooler.dense.weight"), zero("token_type_embeddings"), zero("position_embeddings"), zero("embeddings.LayerNorm.bias"), causal], targets=QV,
         pairs=True),
    case("bert_fresh_pooler", "bert", BERT, "SEQ_CLS", "a base without pooler and head: both are trained whole", [zero("pooler"), zero("classifier.modules_to_save.default.bias")],
         base="no pooler", targets=QV, labels=2),
    case("bert_token", "bert", BERT, "TOKEN_CLS", "a class per token, on the bare model", [zero("classifier.modules_to_save.default.bias"), zero("attention.output.dense.base_layer.bias"), causal],
         base="bare", targets=("query", "key", "value", "dense")),
    case("roberta_seq", "roberta", {**BERT, "type_vocab_size": 1, "pad_token_id": 1}, "SEQ_CLS",
         "positions behind those of padding; a head of two layers, made new over a masked language model", [zero("position_embeddings"), zero("classifier.modules_to_save.default.dense"), causal],
         base="masked", targets=QV),
    case("roberta_token", "xlm-roberta", {**BERT, "type_vocab_size": 1, "pad_token_id": 1, "hidden_act": "gelu_new"}, "TOKEN_CLS", "XLM-R: a class per token",
         [zero("position_embeddings"), zero("classifier.modules_to_save.default.bias"), causal], targets=QV),
    case("gpt2_seq", "gpt2", GPT2, "SEQ_CLS", "GPT-2 under a head made new", [zero("score"), "first row"], base="causal", targets=("c_attn",), fan_in=True),
    case("gemma2_seq", "gemma2", {**LLAMA, "head_dim": 8, "final_logit_softcapping": 0.5, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 8, "sliding_window": 64},
         "SEQ_CLS", "logits of classes are not capped", [zero("score"), capped], base="causal"),
    case("neox_token", "gpt_neox", {**GPT2, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64,
         "classifier_dropout": 0.0}, "TOKEN_CLS", "GPT-NeoX", [zero("classifier.modules_to_save.default.bias")], targets=("query_key_value",)),
    case("falcon_seq", "falcon", dict(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, pad_token_id=PAD, bos_token_id=1, eos_token_id=2),
         "SEQ_CLS", "Falcon", [zero("score"), "first row"], base="causal", targets=("query_key_value",)),
    case("llama_number", "llama", LLAMA, "SEQ_CLS", "one number, because there is one label", [zero("score"), "first row"], base="causal", labels=1,
         problem="regression"),
    case("bert_numbers", "bert", BERT, "SEQ_CLS", "several numbers, as config.json says", [zero("pooler.dense.weight"), zero("classifier"), causal], targets=QV,
         pairs=True, problem="regression", said="base"),
    case("roberta_multi", "roberta", {**BERT, "type_vocab_size": 1, "pad_token_id": 1}, "SEQ_CLS", "several classes at once, as the run says",
         [zero("position_embeddings"), zero("classifier.modules_to_save.default.dense"), causal], base="masked", targets=QV, labels=4,
         problem="multi_label_classification", said="run"),
    case("gpt2_multi", "gpt2", GPT2, "SEQ_CLS", "several classes at once, as config.json says", [zero("score"), "first row"], targets=("c_attn",), fan_in=True,
         problem="multi_label_classification", said="base"),
    case("gemma_number", "gemma", {**LLAMA, "head_dim": 8}, "SEQ_CLS", "one number of a base that has the head", [zero("score"), "first row"], labels=1,
         problem="regression"),
    case("bert_smooth", "bert", BERT, "SEQ_CLS", "smoothed targets", [zero("pooler.dense.weight"), "no smoothing"], targets=QV, smoothing=0.2),
    case("llama_token_smooth", "llama", LLAMA, "TOKEN_CLS", "smoothed targets of words", [zero("score.modules_to_save.default.bias"), "no smoothing"], base="bare",
         smoothing=0.3),
    case("gpt2_weights", "gpt2", GPT2, "TOKEN_CLS", "classes that count more than others", [zero("classifier.modules_to_save.default.bias"), "no weights"],
         base="causal", targets=("c_attn",), fan_in=True, weights=[0.5, 3.0, 1.25]),
]


def write_base(c, folder, gen):
    cfg = transformers.AutoConfig.for_model(c["model_type"], **c["config"])
    if c["base"] == "own":
        cfg.num_labels = c["labels"]
        cfg.id2label = {i: f"class {i}" for i in range(c["labels"])}
        cfg.label2id = {v: k for k, v in cfg.id2label.items()}
        if c["said"] == "base":
            cfg.problem_type = c["problem"]
        model = AUTO[c["task"]].from_config(cfg)
    elif c["base"] == "masked":
        model = AutoModelForMaskedLM.from_config(cfg)
    elif c["base"] == "no pooler":
        model = AutoModel.from_config(cfg, add_pooling_layer=False)
    elif c["base"] == "causal":
        model = AutoModelForCausalLM.from_config(cfg)
    else:
        model = AutoModel.from_config(cfg)
    weigh(model, gen)
    model.save_pretrained(folder)
    for f in os.listdir(folder):
        if f not in ("config.json", "model.safetensors"):
            os.remove(os.path.join(folder, f))


def weigh(model, gen):
    """Numbers with which every part matters."""
    for n, p in sorted(model.named_parameters()):
        r = torch.randn(p.shape, generator=gen)
        if p.dim() == 2 and "embed" in n.lower():
            p.data = 0.7 * r
        elif p.dim() == 2:
            p.data = 1.3 * r / p.shape[1] ** 0.5
        elif "bias" in n:
            p.data = 0.3 * r
        else:
            p.data = 1 + 0.3 * r


def load(c, folder, adapter=None):
    said = dict(problem_type=c["problem"]) if c["said"] == "run" else {}
    model = AUTO[c["task"]].from_pretrained(folder, num_labels=c["labels"], dtype=torch.float32, attn_implementation="eager", **said)
    model.eval()  # no case has dropout
    return model if adapter is None else PeftModel.from_pretrained(model, adapter, is_trainable=True).eval()


def add_lora(c, model, folder, gen):
    whole = ["pooler"] if c["base"] == "no pooler" else None
    m = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=c["targets"], task_type=c["task"], modules_to_save=whole,
                                           fan_in_fan_out=c["fan_in"]))
    for n, p in sorted(m.named_parameters()):
        if not p.requires_grad:
            continue
        r = torch.randn(p.shape, generator=gen)
        # what goes through a tanh stays where it is steep: AdamW makes whole steps of gradients that are rounding errors
        p.data = 0.8 * r / p.shape[-1] ** 0.5 if "lora_A" in n else 0.25 * r if "lora_B" in n else 0.1 * r if "dense" in n else 0.4 * r
    m.peft_config["default"].base_model_name_or_path = c["name"]
    m.save_pretrained(folder)
    for f in os.listdir(folder):
        if f not in ("adapter_config.json", "adapter_model.safetensors"):
            os.remove(os.path.join(folder, f))


def make_batches(c, gen):
    def draw(lo, hi):
        return int(torch.randint(lo, hi + 1, (1,), generator=gen))

    out = []
    for _ in range(STEPS):
        samples = []
        for _ in range(4):
            n = draw(5, 20)
            ids = [3 if "roberta" in c["model_type"] else 1] + torch.randint(4, VOCAB, (n - 2,), generator=gen).tolist() + [2]
            classes = [-1] * n
            if c["problem"] is not None:
                classes[0 if "bert" in c["model_type"] else n - 1] = 0
            elif c["task"] == "SEQ_CLS":
                classes[0 if "bert" in c["model_type"] else n - 1] = draw(0, c["labels"] - 1)
            else:
                for i in range(1, n - 1):
                    classes[i] = draw(-1, c["labels"] - 1)
                classes[1] = max(classes[1], 0)
            samples.append(dict(ids=ids, classes=classes))
            if c["problem"] == "regression":
                samples[-1]["values"] = [round(float(v), 3) for v in 2 * torch.randn(c["labels"], generator=gen)]
            elif c["problem"] is not None:
                samples[-1]["values"] = [float(draw(0, 1)) for _ in range(c["labels"])]
            if c["pairs"]:
                samples[-1]["second_from"] = draw(2, n - 2)
        out.append(samples)
    return out


# ---- computing ---------------------------------------------------------------------------------------------------------


def forward(c, model, samples, first_row=False):
    n = max(len(s["ids"]) for s in samples)
    pad = c["config"]["pad_token_id"]
    ids = torch.full((len(samples), n), pad, dtype=torch.long)
    mask = torch.zeros(len(samples), n, dtype=torch.long)
    types = torch.zeros(len(samples), n, dtype=torch.long)
    for i, s in enumerate(samples):
        k = len(s["ids"])
        ids[i, :k] = torch.tensor(s["ids"])
        mask[i, :k] = 1
        types[i, s.get("second_from", k) : k] = 1
    if first_row:
        return model(input_ids=ids[:, :1], attention_mask=mask[:, :1]).logits
    more = dict(token_type_ids=types) if c["pairs"] else {}
    z = model(input_ids=ids, attention_mask=mask, **more).logits
    if c["task"] == "SEQ_CLS":
        return z
    return torch.cat([z[i, [k for k, v in enumerate(s["classes"]) if v >= 0]] for i, s in enumerate(samples)])


def step_loss(c, model, samples, first_row=False, plain=False):
    z = forward(c, model, samples, first_row)
    if c["problem"] is not None:
        return ForSequenceClassificationLoss(torch.tensor([s["values"] for s in samples]), z, inner(model).config)
    target = torch.tensor([v for s in samples for v in s["classes"] if v >= 0])
    if plain:
        return F.cross_entropy(z, target)
    if c["smoothing"] > 0:
        return LabelSmoother(epsilon=c["smoothing"])((None, z)[1:], target)
    return F.cross_entropy(z, target, weight=None if c["weights"] is None else torch.tensor(c["weights"]))


def off_figures(c, folder, adapter, batches, logits, losses):
    figures = []
    for off in c["off"]:
        model = load(c, folder, adapter)
        if callable(off):
            off(model)
        with torch.no_grad():
            first_row, plain = off == "first row", off in ("no smoothing", "no weights")
            z = forward(c, model, batches[0], first_row)
            moved = [abs(float(step_loss(c, model, b, first_row, plain)) - x) / x for b, x in zip(batches, losses)]
        d_logits, d_loss = float((z - logits).abs().max()), max(moved)
        assert (plain or d_logits >= 100 * parity.TOL_LOGITS) and d_loss >= 100 * parity.TOL_LOSS, (c["name"], off, d_logits, d_loss)
        figures.append(dict(max_abs_logit=d_logits, max_rel_loss=d_loss))
    return figures


def make_case(c, out):
    folder = os.path.join(out, c["name"])
    adapter = os.path.join(folder, "adapter")
    shutil.rmtree(folder, ignore_errors=True)
    gen = torch.Generator().manual_seed(sum(map(ord, c["name"])))
    torch.manual_seed(1)
    write_base(c, folder, gen)
    add_lora(c, load(c, folder), adapter, gen)
    batches = make_batches(c, gen)
    model = load(c, folder, adapter)
    with torch.no_grad():
        logits = forward(c, model, batches[0])
        losses = [float(step_loss(c, model, b)) for b in batches]
    params = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    optim = dict(parity.OPTIM, lr=0.01, steps=STEPS, max_grad_norm=clip_level(c, model, batches[0]))
    log, grads, after = parity.train(model, batches, False, optim, lambda m, b: step_loss(c, m, b))
    info = dict(what=c["what"], method="lora", task=c["task"], transformers=transformers.__version__, peft=peft.__version__,
                problem=c["problem"] if c["said"] == "run" else None, smoothing=c["smoothing"],
                class_weights=c["weights"], torch=torch.__version__, trainable=parity.trainable_line(model), off=off_figures(c, folder, adapter, batches, logits, losses),
                optim=optim, steps=log, batches=batches)
    tensors = dict(logits=logits, **{"grad." + n: t for n, t in grads.items()}, **{"after." + n: t for n, t in after.items()})
    parity.save_case(folder, info, tensors)
    print(f"{c['name']:16} {info['trainable']}  off: {info['off']}")


def clip_level(c, model, samples):
    params = [p for p in model.parameters() if p.requires_grad]
    grads = torch.autograd.grad(step_loss(c, model, samples), params)
    return round(0.9 * float(torch.sqrt(sum((g.double() ** 2).sum() for g in grads))), 3)


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--only", nargs="*")
    ap.add_argument("--out", default=os.path.join(parity.ROOT, "tests/golden/classes"))
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    for c in CASES:
        if not a.only or c["name"] in a.only:
            make_case(c, a.out)


if __name__ == "__main__":
    main()

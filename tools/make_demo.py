#!/usr/bin/env python3
"""Makes what the bundled example starts from, with the standard library alone:

  tools/make_demo.py OUT   writes  OUT/init/     a LLaMA model of 0.9 M random weights with its tokenizer
                                   OUT/corpus.jsonl, OUT/corpus-test.jsonl   counting, to pretrain it on
                                   OUT/train.csv, OUT/test.csv               questions about numbers

tools/make-demo-model.sh trains the base model on the corpus with the program itself (peft.method: full); the result is
examples/demo/base. The base has seen people count, up and down, and never a question. The adapter is trained on questions
about some numbers ("What comes after 417?") and asked about others: every question of test.csv is new to it.
"""
import csv, json, math, pathlib, random, re, struct, sys

VOCAB = 384
CFG = dict(hidden_size=128, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
           intermediate_size=384)
LOW, HIGH = 100, 999


def counting(rng):
    """Somebody counts, up or down: 417 418 419 ..."""
    n = rng.randint(4, 10)
    first = rng.randint(LOW, HIGH - n)
    numbers = list(range(first, first + n))
    return " ".join(map(str, numbers if rng.random() < 0.5 else numbers[::-1]))


def questions(rng):
    """Every question there is, in random order."""
    rows = [dict(question=f"What comes after {n}?", answer=n + 1) for n in range(LOW, HIGH)]
    rows += [dict(question=f"What comes before {n}?", answer=n - 1) for n in range(LOW + 1, HIGH + 1)]
    rng.shuffle(rows)
    return rows


# --- a byte-level BPE tokenizer, trained on the corpus ----------------------------------------------------------------

def byte_letters():
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, extra = {}, 0
    for b in range(256):
        if b in keep:
            table[b] = chr(b)
        else:
            table[b] = chr(256 + extra)
            extra += 1
    return table


def train_tokenizer(texts):
    letters = byte_letters()
    words = {}
    for t in texts:
        for w in re.findall(r" ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+", t):
            words[w] = words.get(w, 0) + 1
    split = {w: [letters[b] for b in w.encode()] for w in words}
    vocab = ["<|end|>"] + sorted(letters.values())
    merges = []
    while len(vocab) < VOCAB:
        pairs = {}
        for w, parts in split.items():
            if any(c.isdigit() for c in w):
                continue  # a digit is a token: numbers are read digit by digit
            for a, b in zip(parts, parts[1:]):
                pairs[a, b] = pairs.get((a, b), 0) + words[w]
        if not pairs:
            break
        best = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(best)
        vocab.append(best[0] + best[1])
        for w, parts in split.items():
            out, i = [], 0
            while i < len(parts):
                if i + 1 < len(parts) and (parts[i], parts[i + 1]) == best:
                    out.append(parts[i] + parts[i + 1])
                    i += 2
                else:
                    out.append(parts[i])
                    i += 1
            split[w] = out
    end = dict(id=0, content="<|end|>", single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [end], "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|end|>", "type_id": 0}},
                                                                    {"Sequence": {"id": "A", "type_id": 0}}],
                           "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                           "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [0], "tokens": ["<|end|>"]}}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {t: i for i, t in enumerate(vocab)}, "merges": [[a, b] for a, b in merges]},
    }


# --- a model of random weights ------------------------------------------------------------------------------------------

def write_model(folder, rng):
    d, f, hd = CFG["hidden_size"], CFG["intermediate_size"], CFG["head_dim"]
    q, kv = CFG["num_attention_heads"] * hd, CFG["num_key_value_heads"] * hd
    shapes = {"model.embed_tokens.weight": (VOCAB, d), "model.norm.weight": (d,)}
    for i in range(CFG["num_hidden_layers"]):
        p = f"model.layers.{i}."
        shapes |= {p + "input_layernorm.weight": (d,), p + "post_attention_layernorm.weight": (d,),
                   p + "self_attn.q_proj.weight": (q, d), p + "self_attn.k_proj.weight": (kv, d),
                   p + "self_attn.v_proj.weight": (kv, d), p + "self_attn.o_proj.weight": (d, q),
                   p + "mlp.gate_proj.weight": (f, d), p + "mlp.up_proj.weight": (f, d),
                   p + "mlp.down_proj.weight": (d, f)}
    header, data, at = {"__metadata__": {"format": "pt"}}, bytearray(), 0
    for name, shape in sorted(shapes.items()):
        n = math.prod(shape)
        if len(shape) == 1:
            values = [1.0] * n
        else:
            scale = 0.02 if "embed" in name else 1 / math.sqrt(shape[1])
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                scale /= math.sqrt(2 * CFG["num_hidden_layers"])
            values = [rng.gauss(0, scale) for _ in range(n)]
        data += struct.pack(f"<{n}f", *values)
        header[name] = dict(dtype="F32", shape=list(shape), data_offsets=[at, at + 4 * n])
        at += 4 * n
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    config = dict(architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=VOCAB, hidden_act="silu",
                  max_position_embeddings=256, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=True,
                  attention_bias=False, mlp_bias=False, bos_token_id=0, eos_token_id=0, torch_dtype="float32",
                  initializer_range=0.02, **CFG)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (folder / "generation_config.json").write_text(json.dumps(dict(bos_token_id=0, eos_token_id=0), indent=2) + "\n")


def main():
    out = pathlib.Path(sys.argv[1])
    init = out / "init"
    init.mkdir(parents=True, exist_ok=True)
    rng = random.Random(1)
    corpus = [counting(rng) for _ in range(30000)]
    with (out / "corpus.jsonl").open("w") as f:
        f.writelines(json.dumps({"text": t}) + "\n" for t in corpus[:-500])
    with (out / "corpus-test.jsonl").open("w") as f:
        f.writelines(json.dumps({"text": t}) + "\n" for t in corpus[-500:])
    rows = questions(rng)
    tokenizer = train_tokenizer([f"Q: {r['question']}\nA: {r['answer']}" for r in rows])
    (init / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")) + "\n")
    (init / "tokenizer_config.json").write_text(json.dumps(
        dict(tokenizer_class="PreTrainedTokenizerFast", bos_token="<|end|>", eos_token="<|end|>",
             model_max_length=256), indent=2) + "\n")
    write_model(init, rng)
    for name, part in (("train.csv", rows[:-200]), ("test.csv", rows[-200:])):
        with (out / name).open("w", newline="") as f:
            w = csv.DictWriter(f, ["question", "answer"], lineterminator="\n")
            w.writeheader()
            w.writerows(part)


main()

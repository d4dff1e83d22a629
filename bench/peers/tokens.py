"""What both sides are given: models of real shapes with random weights, rows of token ids, the adapter to start from; and
how many floating-point operations a step takes, by formula."""
import array
import json
import os
import random
import struct
import subprocess

SHAPES = {  # name of the shape in make_model -> folder of its tokenizer
    "smollm2-135m": "smollm2",
    "qwen2.5-0.5b": "qwen2.5",
    "tinyllama-1.1b": "llama-2",
    "toy": None,
}
# Data sets, as files below --data: the keys of our `data` section that turn rows into text.
TEXTS = {
    "gsm8k": {"train": "datasets/gsm8k/train.jsonl", "prompt": "Question: {question}\nAnswer:", "target": " {answer}"},
    "alpaca": {"train": "datasets/alpaca-en/train.json", "prompt": "{instruction}\n{input}\n", "target": "{output}"},
    "hh": {"train": "datasets/hh-rlhf-harmless/train.jsonl", "text": "{chosen}"},
    "short": {"train": "datasets/qa-epic/train.csv", "prompt": "Q: {question}\nA:", "target": " {answer}"},
}
LONGEST = 512  # rows beyond it are left out


def model(make_model, root, shape, dtype, data):
    folder = os.path.join(root, "models", f"{shape}-{dtype}")
    if not os.path.exists(os.path.join(folder, "model.safetensors")):
        command = [make_model, "--shape", shape, folder, "--dtype", dtype, "--seed", "1"]
        tokenizer = data and SHAPES[shape] and os.path.join(data, "tokenizers", SHAPES[shape])
        if tokenizer and os.path.isdir(tokenizer):
            command += ["--tokenizer", tokenizer]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def sizes(folder):
    with open(os.path.join(folder, "config.json")) as f:
        c = json.load(f)
    heads, hidden = c["num_attention_heads"], c["hidden_size"]
    return {"hidden": hidden, "layers": c["num_hidden_layers"], "heads": heads,
            "q": heads * c.get("head_dim", hidden // heads),
            "kv": c.get("num_key_value_heads", heads) * c.get("head_dim", hidden // heads),
            "ffn": c["intermediate_size"], "vocab": c["vocab_size"], "positions": c["max_position_embeddings"]}


def linears(s):
    """Name, input width, output width of the seven products of a block."""
    d, q, kv, f = s["hidden"], s["q"], s["kv"], s["ffn"]
    return [("self_attn.q_proj", d, q), ("self_attn.k_proj", d, kv), ("self_attn.v_proj", d, kv),
            ("self_attn.o_proj", q, d), ("mlp.gate_proj", d, f), ("mlp.up_proj", d, f), ("mlp.down_proj", f, d)]


def step_flops(s, rank, lengths, labels):
    """Operations that a LoRA step needs, nothing recomputed: 4 per weight and token (no gradient of frozen weights), the
    head at its labels, causal attention with five products in its backward pass, and the adapters."""
    n_linear = s["layers"] * sum(i * o for _, i, o in linears(s))
    n_lora = s["layers"] * rank * sum(i + o for _, i, o in linears(s))
    tokens = sum(lengths)
    return (tokens * (4 * n_linear + 6 * n_lora) + labels * 4 * s["hidden"] * s["vocab"] +
            sum(n * n for n in lengths) * 7 * s["q"] * s["layers"])


def adapter(root, folder, rank, seed=7):
    """An adapter for all linears with A as peft draws it (Kaiming-uniform, a = sqrt 5) and B zero, in peft's format."""
    s = sizes(folder)
    out = os.path.join(root, "start", f"{os.path.basename(folder)}-r{rank}")
    path = os.path.join(out, "adapter_model.safetensors")
    if os.path.exists(path):
        return out
    os.makedirs(out, exist_ok=True)
    draw, header, blocks, at = random.Random(seed), {}, [], 0
    for layer in range(s["layers"]):
        for name, n_in, n_out in linears(s):
            bound = n_in ** -0.5
            for part, shape in (("A", [rank, n_in]), ("B", [n_out, rank])):
                n = shape[0] * shape[1]
                values = array.array("f", (draw.uniform(-bound, bound) for _ in range(n)) if part == "A" else bytes(4 * n))
                header[f"base_model.model.model.layers.{layer}.{name}.lora_{part}.weight"] = {
                    "dtype": "F32", "shape": shape, "data_offsets": [at, at + 4 * n]}
                blocks.append(values.tobytes())
                at += 4 * n
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path + ".part", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.writelines(blocks)
    with open(os.path.join(out, "adapter_config.json"), "w") as f:
        json.dump({"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": os.path.abspath(folder),
                   "r": rank, "lora_alpha": 2 * rank, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False,
                   "inference_mode": True, "init_lora_weights": True, "modules_to_save": None,
                   "target_modules": [n.split(".")[1] for n, _, _ in linears(s)]}, f, indent=1)
    os.replace(path + ".part", path)
    return out


def write_rows(path, rows):
    with open(path + ".part", "w") as f:
        for ids, labels in rows:
            f.write(json.dumps({"input_ids": ids, "labels": labels}) + "\n")
    os.replace(path + ".part", path)


def read_rows(path):
    with open(path) as f:
        return [(r["input_ids"], r["labels"]) for r in map(json.loads, f)]


def export(program, folder, data, name, path):
    """Rows of a real data set as our program feeds them to the model."""
    keys = {**TEXTS[name], "overlength": "drop"}
    keys["train"] = os.path.join(data, keys["train"])
    config = path + ".yaml"
    with open(config, "w") as f:
        json.dump({"model": {"name_or_path": folder}, "peft": {"method": "lora"}, "data": keys,
                   "training": {"max_length": min(LONGEST, sizes(folder)["positions"])}}, f)
    with open(path + ".part", "w") as out:
        subprocess.run([program, "data", "tokens", "--quiet", config], check=True, stdout=out)
    os.replace(path + ".part", path)


def stream(program, root, folder, data):
    """One long text in token ids: GSM8K where there is data, else numbers drawn at random."""
    if data and os.path.exists(os.path.join(data, TEXTS["gsm8k"]["train"])):
        path = rows(program, root, folder, data, "gsm8k")
        return [i for ids, _ in read_rows(path) for i in ids]
    draw, vocab = random.Random(5), sizes(folder)["vocab"]
    return [draw.randrange(vocab) for _ in range(200_000)]


def rows(program, root, folder, data, kind):
    """Path of the rows `kind`: a name of TEXTS, fixed<N> (rows of N tokens, all learned), or shared<P>x<A>x<K>: groups of
    K rows that have P tokens in common and A of their own, which are the labels."""
    os.makedirs(os.path.join(root, "tokens"), exist_ok=True)
    shape = os.path.basename(folder).rpartition("-")[0]
    path = os.path.join(root, "tokens", f"{shape}-{kind}.jsonl")
    if os.path.exists(path):
        return path
    if kind in TEXTS:
        export(program, folder, data, kind, path)
    elif kind.startswith("fixed"):
        n, ids = int(kind[5:]), stream(program, root, folder, data)
        many = min(256, max(8, 131072 // n))
        while len(ids) < many * n:
            ids = ids + ids
        write_rows(path, [(ids[i * n:(i + 1) * n],) * 2 for i in range(many)])
    else:
        prompt, answer, k = map(int, kind[len("shared"):].split("x"))
        ids, at, out = stream(program, root, folder, data), 0, []
        while len(out) < 64 * k:
            first = [ids[(at + i) % len(ids)] for i in range(prompt)]
            at += prompt
            for _ in range(k):
                own = [ids[(at + i) % len(ids)] for i in range(answer)]
                at += answer
                out.append((first + own, [-100] * prompt + own))
        write_rows(path, out)
    return path


def batches(path, batch, steps):
    """Per step: [real, learned, padded] tokens and the lengths of its rows, in the order of the file."""
    every, counts, lengths = read_rows(path), [], []
    per_epoch = -(-len(every) // batch)
    for step in range(steps):
        at = step % per_epoch * batch
        rows_ = every[at:at + batch]
        size = [len(ids) for ids, _ in rows_]
        counts.append([sum(size), sum(sum(1 for x in labels[1:] if x != -100) for _, labels in rows_),
                       max(size) * len(size)])
        lengths.append(size)
    return counts, lengths

#!/usr/bin/env python3
"""Makes tests/golden/data: two small tokenizers and what becomes of prompt/target pairs under them (pip install tokenizers).

usage: make_data_fixtures.py OUTPUT_DIR
bytelevel/ is a byte-level BPE with NFC (as Qwen's), metaspace/ a BPE over "▁" with byte fallback and a BOS (as Llama 2's).
pairs.jsonl: {"tokenizer", "prompt", "target", "ids", "n_prompt", "split"}, by the rule of src/data/example.h written down
once more here over the offsets of `tokenizers`: the whole text once; a token is the target's when its first byte lies at
or after the boundary; where a token straddles it, prompt and target are tokenized apart, the target without the dummy
prefix.
"""
import copy
import json
import os
import sys

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXT = [
    "Q: What is the capital of France?\nA: Paris",
    "Q: What is the capital of Germany?\nA: Berlin",
    "Question: Who wrote it?\nAnswer: Nobody wrote it, it was always there.",
    "A:Paris A:Berlin 12 * 11 = 132, 12 + 30 = 42",
    "Name three colours.\n\n- red\n- green\n- blue\n",
    "Ein Stück über Größe; café, naïve, Ελλάδα, 東京は日本の首都です。",
] * 4

PAIRS = [
    ("Q: What is the capital of France?\nA:", " Paris"),
    ("Q: What is the capital of France?\nA: ", "Paris"),
    ("Q: What is the capital of France?\nA:", "Paris"),
    ("Q: What is the capital of France?\nA:\n", "Paris"),
    ("Q: What is the capital of France?\nA:  ", "  Paris"),
    ("Q: What is the capital of Germ", "any?"),
    ("12 * 1", "1 = 132"),
    ("12 * 11 =", " 132"),
    ("", "Paris"),
    ("", " Paris"),
    ("Paris", ""),
    ("", ""),
    (" ", " "),
    ("A: ", ""),
    ("caf", "é"),
    ("cafe", "\u0301 au lait"),
    ("e", "\u0301\u0301"),
    ("東", "京は"),
    ("東京は日本の首都で", "す。"),
    ("emoji: ", "\U0001f600"),
    ("emoji:", "\U0001f600\U0001f600"),
    ("Name three colours.\n", "\n- red\n- green"),
    ("Name three colours.", "\n\n- red"),
    ("Name three colours.\n\n", "- red"),
    ("tab\t", "\tafter"),
    ("x" * 30, "x" * 30),
    ("▁", "▁Paris"),
    ("A:", "▁Paris"),
    ("Question: Who wrote it?\nAnswer:", " Nobody wrote it"),
    ("Question: Who wrote it?\nAnswer: No", "body wrote it"),
]


def bytelevel():
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=["<|end|>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    t.train_from_iterator(TEXT, trainer)
    t.post_processor = processors.ByteLevel(trim_offsets=True)  # the file says trim; the rule must not use that
    return t, {"eos_token": "<|end|>", "tokenizer_class": "PreTrainedTokenizerFast"}


def metaspace():
    specials = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    t = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    trainer = trainers.BpeTrainer(vocab_size=480, special_tokens=specials, show_progress=False, limit_alphabet=60)
    t.train_from_iterator([p for text in TEXT for p in text.split("\n")], trainer)
    description = json.loads(t.to_str())
    description["added_tokens"] = description["added_tokens"][:3]  # bytes are pieces, not added tokens
    t = Tokenizer.from_str(json.dumps(description))
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                   decoders.Strip(" ", 1, 0)])
    t.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return t, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "PreTrainedTokenizerFast"}


def untrimmed(t):
    description = json.loads(t.to_str())
    if description["post_processor"]["type"] == "ByteLevel":
        description["post_processor"]["trim_offsets"] = False
    return Tokenizer.from_str(json.dumps(description))


def continuing(t):
    description = json.loads(t.to_str())
    if description["pre_tokenizer"]["type"] == "Metaspace":
        description["pre_tokenizer"]["prepend_scheme"] = "never"
    return Tokenizer.from_str(json.dumps(description))


def expect(t, eos, prompt, target):
    e = untrimmed(t).encode(prompt + target)
    boundary = len(prompt)  # tokenizers counts characters
    n_before = sum(e.special_tokens_mask)  # BOS only, in these two
    assert e.special_tokens_mask[:n_before] == [1] * n_before
    straddles = any(a < boundary < b for a, b in e.offsets[n_before:])
    if not straddles:
        n_prompt = n_before + sum(1 for a, _ in e.offsets[n_before:] if a < boundary)
        return e.ids + [eos], n_prompt, False
    head = t.encode(prompt).ids
    tail = continuing(t).encode(target, add_special_tokens=False).ids
    return head + tail + [eos], len(head), True


def main():
    out = sys.argv[1]
    lines, splits = [], 0
    for name, make in (("bytelevel", bytelevel), ("metaspace", metaspace)):
        t, config = make()
        os.makedirs(f"{out}/{name}", exist_ok=True)
        with open(f"{out}/{name}/tokenizer.json", "w", encoding="utf-8") as f:
            json.dump(json.loads(t.to_str()), f, ensure_ascii=False, indent=0)
        with open(f"{out}/{name}/tokenizer_config.json", "w", encoding="utf-8") as f:
            json.dump(config, f, indent=1)
        eos = t.token_to_id(config["eos_token"])
        for prompt, target in PAIRS:
            ids, n_prompt, split = expect(t, eos, prompt, target)
            splits += split
            lines.append({"tokenizer": name, "prompt": prompt, "target": target, "ids": ids, "n_prompt": n_prompt,
                          "split": split})
    with open(f"{out}/pairs.jsonl", "w", encoding="utf-8") as f:
        for line in lines:
            f.write(json.dumps(line, ensure_ascii=False) + "\n")
    print(f"{len(lines)} pairs, {splits} split")


if __name__ == "__main__":
    main()

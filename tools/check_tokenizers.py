#!/usr/bin/env python3
"""Compares our tokenizers with Hugging Face's `tokenizers` (and SentencePiece), text by text.

    cmake --build build/release --target bench_tokenize_lines
    python3 tools/check_tokenizers.py [--shared ../shared] [--only NAME ...] [--speed]

For every tokenizer: all text fields of all data sets, and more than 2,000 strings made to hurt. Compared are the ids with
and without special tokens, byte offsets, decoding with and without special tokens, and decoding as a stream. One line a
tokenizer; exit code 1 if anything differs. --speed measures tokens per second of processor time of both, on one thread.
"""
import argparse
import csv
import glob
import json
import os
import random
import struct
import subprocess
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import nasty_strings  # noqa: E402
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors  # noqa: E402


def strings_in(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for v in value:
            yield from strings_in(v)
    elif isinstance(value, dict):
        for v in value.values():
            yield from strings_in(v)


def data_texts(folder):
    texts = []
    for path in sorted(glob.glob(folder + "/**/*", recursive=True)):
        if path.endswith(".jsonl"):
            for line in open(path, encoding="utf-8"):
                texts += strings_in(json.loads(line))
        elif path.endswith(".json"):
            texts += strings_in(json.load(open(path, encoding="utf-8")))
        elif path.endswith((".csv", ".tsv")):
            with open(path, encoding="utf-8-sig", newline="") as f:
                for row in csv.reader(f, delimiter="\t" if path.endswith(".tsv") else ",",
                                      quoting=csv.QUOTE_NONE if path.endswith(".tsv") else csv.QUOTE_MINIMAL):
                    texts += row
        elif path.endswith(".txt"):
            texts += open(path, encoding="utf-8", newline="").read().split("\n")
    return list(dict.fromkeys(texts))


def merges_of(pieces):
    """As transformers' generate_merges, by score."""
    vocab = {p.piece: i for i, p in enumerate(pieces)}
    merges = []
    for p in pieces:
        if p.type not in (1, 4, 5):
            continue
        w = p.piece
        local = [(w[:i], w[i:], p.score) for i in range(1, len(w)) if w[:i] in vocab and w[i:] in vocab]
        merges += sorted(local, key=lambda x: (vocab[x[0]], vocab[x[1]]))
    return [m[:2] for m in sorted(merges, key=lambda v: (v[2], len(v[0]), len(v[1])), reverse=True)]


def fields(data):
    """(number, value) of a protocol buffer: integers and bytes."""
    at, out = 0, []

    def varint():
        nonlocal at
        value, shift = 0, 0
        while True:
            c = data[at]
            at, value, shift = at + 1, value | (c & 127) << shift, shift + 7
            if c < 128:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            out.append((key >> 3, varint()))
        else:
            n = varint() if key & 7 == 2 else 4 if key & 7 == 5 else 8
            out.append((key >> 3, data[at:at + n]))
            at += n
    return out


class Piece:
    def __init__(self, data):
        f = dict(fields(data))
        self.piece = f.get(1, b"").decode()
        self.score = struct.unpack("<f", f[2])[0] if 2 in f else 0.0
        self.type = f.get(3, 1)


def proto_of(path):
    """(pieces, precompiled_charsmap) of a SentencePiece model."""
    parts = fields(open(path, "rb").read())
    return [Piece(v) for k, v in parts if k == 1], dict(fields(dict(parts)[3])).get(2, b"")


def llama_from_spm(path, legacy=True, bos="<s>"):
    """As transformers' LlamaConverter."""
    pieces, _ = proto_of(path)
    vocab = {p.piece: i for i, p in enumerate(pieces)}
    t = Tokenizer(models.BPE(vocab, merges_of(pieces), unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.add_tokens([AddedToken(p.piece, normalized=False, special=p.type != 4) for p in pieces if p.type in (2, 3, 4)])
    if legacy:
        t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        t.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", split=False)
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    t.post_processor = processors.TemplateProcessing(f"{bos} $A", f"{bos} $A {bos} $B", [(bos, vocab[bos])])
    return t


def t5_from_spm(path):
    """As transformers' T5Tokenizer."""
    pieces, charsmap = proto_of(path)
    vocab = [(p.piece, p.score) for p in pieces] + [(f"<extra_id_{i}>", 0.0) for i in range(99, -1, -1)]
    t = Tokenizer(models.Unigram(vocab, unk_id=2, byte_fallback=False))
    t.normalizer = normalizers.Precompiled(charsmap)
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("▁", "always")])
    t.decoder = decoders.Metaspace("▁", "always")
    t.add_special_tokens([AddedToken(x, normalized=False, special=True) for x in ["<pad>", "</s>", "<unk>"] + [v for v, _ in vocab[-100:]]])
    t.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    return t


def llama3_from_tiktoken(folder):
    from transformers.convert_slow_tokenizer import TikTokenConverter
    config = json.load(open(folder + "/tokenizer_config.json"))
    extra = [config["added_tokens_decoder"][str(i)]["content"] for i in range(128000, 128256)]
    t = TikTokenConverter(folder + "/tokenizer.model", extra_special_tokens=extra).converted()
    bos = "<|begin_of_text|>"
    t.post_processor = processors.TemplateProcessing(f"{bos} $A", f"{bos} $A {bos} $B", [(bos, 128000)])
    return t


def byte_level_from_files(folder, qwen=False):
    vocab, merges = models.BPE.read_file(folder + "/vocab.json", folder + "/merges.txt")
    t = Tokenizer(models.BPE(vocab, merges, continuing_subword_prefix="", end_of_word_suffix=""))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not qwen)
    if qwen:
        from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX
        t.normalizer = normalizers.NFC()
        t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated"), level])
    else:
        t.pre_tokenizer = level
    t.decoder = decoders.ByteLevel()
    config = json.load(open(folder + "/tokenizer_config.json"))
    for i, a in sorted(config["added_tokens_decoder"].items(), key=lambda x: int(x[0])):
        t.add_tokens([AddedToken(**{k: a[k] for k in ("content", "single_word", "lstrip", "rstrip", "normalized", "special")})])
    return t


def oracles(shared, copies):
    """(name, what we open, the oracle)"""
    tok, mod = shared + "/data/tokenizers/", shared + "/data/models/"

    def stand_alone(name, source, *files):
        folder = f"{copies}/{name}"
        os.makedirs(folder, exist_ok=True)
        for f in files:
            if not os.path.exists(f"{folder}/{f}"):
                os.symlink(os.path.abspath(f"{source}/{f}"), f"{folder}/{f}")
        return folder

    for name in ("gpt2", "gpt-neox-20b", "llama-2", "llama-3", "mistral-v0.1", "phi-2", "phi-3-mini", "qwen2.5", "smollm2", "t5-small"):
        yield name, tok + name, lambda name=name: Tokenizer.from_file(f"{tok}{name}/tokenizer.json")
    for name in ("stories260K-hf", "tinystories-656k"):
        yield name, mod + name, lambda name=name: Tokenizer.from_file(f"{mod}{name}/tokenizer.json")
    yield "tiny_bpe", tok + "tiny-torchtune/tiny_bpe_tokenizer.json", lambda: Tokenizer.from_file(tok + "tiny-torchtune/tiny_bpe_tokenizer.json")
    yield "mistral-v0.3 (spm)", tok + "mistral-v0.3", lambda: llama_from_spm(tok + "mistral-v0.3/tokenizer.model")
    yield "llama-2 (spm)", stand_alone("llama-2", tok + "llama-2", "tokenizer.model"), lambda: llama_from_spm(tok + "llama-2/tokenizer.model")
    yield ("llama-2 (spm, legacy false)", stand_alone("llama-2-new", tok + "llama-2", "tokenizer.model", "tokenizer_config.json"),
           lambda: llama_from_spm(tok + "llama-2/tokenizer.model", legacy=False))
    yield ("t5-small (spm)", stand_alone("t5", tok + "t5-small", "spiece.model", "tokenizer_config.json"),
           lambda: t5_from_spm(tok + "t5-small/spiece.model"))
    yield ("llama-3 (tiktoken)", stand_alone("llama-3", tok + "llama-3", "tokenizer.model", "tokenizer_config.json"),
           lambda: llama3_from_tiktoken(tok + "llama-3"))
    yield ("llama-3 (tiktoken alone)", stand_alone("llama-3-alone", tok + "llama-3", "tokenizer.model"),
           lambda: llama3_from_tiktoken(tok + "llama-3"))
    yield ("gpt2 (vocab+merges)", stand_alone("gpt2", tok + "gpt2", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"),
           lambda: byte_level_from_files(tok + "gpt2"))
    yield ("qwen2.5 (vocab+merges)", stand_alone("qwen", tok + "qwen2.5", "vocab.json", "merges.txt", "tokenizer_config.json"),
           lambda: byte_level_from_files(tok + "qwen2.5", qwen=True))


def ours(driver, model, texts, *options):
    lines = "".join(json.dumps(t, ensure_ascii=True) + "\n" for t in texts) if "--hex" not in options else "".join(t.hex() + "\n" for t in texts)
    r = subprocess.run([driver, model, *options], input=lines.encode(), capture_output=True)
    if r.returncode != 0:
        raise SystemExit(f"{model}: {r.stderr.decode()}")
    out = r.stdout.decode().split("\n")[:-1]
    assert len(out) == len(texts), (len(out), len(texts))
    return out, json.loads(r.stderr.decode().strip().split("\n")[-1])


def byte_places(text):
    places, at = [], 0
    for c in text:
        places.append(at)
        at += len(c.encode("utf-8"))
    return places + [at]


def missing_bytes(oracle, memo={}):
    """Bytes that a byte-level vocabulary has no token for (SmolLM2 lacks a few); empty for other kinds."""
    if id(oracle) not in memo:
        alphabet = {}
        chars = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
        for b in chars + [b for b in range(256) if b not in chars]:
            alphabet[b] = chr(b) if b in chars else chr(256 + len(alphabet) - len(chars))
        lacking = {b for b, c in alphabet.items() if oracle.token_to_id(c) is None}
        memo[id(oracle)] = lacking if isinstance(oracle.decoder, decoders.ByteLevel) else set()
    return memo[id(oracle)]


def offsets_count(oracle, text):
    """Where offsets of `tokenizers` point past what the tokens stand for, ours do not follow: behind bytes that the vocabulary
    lacks (they are dropped, and what comes after is placed too early), and a first character that T5's map removes."""
    if missing_bytes(oracle) & set(text.encode()):
        return False
    return not (oracle.normalizer is not None and text and not oracle.normalizer.normalize_str(text[0]))


class Report:
    def __init__(self, name, show):
        self.name, self.show, self.rows, self.bad = name, show, 0, {}

    def check(self, what, text, theirs, mine):
        if theirs != mine:
            self.bad[what] = self.bad.get(what, 0) + 1
            if self.bad[what] <= self.show:
                print(f"  {self.name}: {what} differ for {text!r:.300}\n    theirs {theirs!r:.400}\n    ours   {mine!r:.400}")


def compare(driver, name, model, oracle, texts, nasty, show):
    oracle.no_truncation()
    oracle.no_padding()
    r = Report(name, show)
    for batch, options in ((texts, ["--full"]), (nasty, ["--stream"])):
        for special in (True, False):
            out, _ = ours(driver, model, batch, *options, *([] if special else ["--no-special"]))
            for text, line in zip(batch, out):
                mine, theirs = json.loads(line), oracle.encode(text, add_special_tokens=special)
                if "error" in mine:
                    r.check("errors", text, None, mine["error"])
                    continue
                ids = theirs.ids
                r.check("ids", text, ids, mine["ids"])
                if ids != mine["ids"]:
                    continue
                if special:
                    whole = oracle.decode(ids, skip_special_tokens=False)
                    r.check("decode", text, whole, mine["text"])
                    r.check("decode skip", text, oracle.decode(ids, skip_special_tokens=True), mine["skipped"])
                    if "stream" in mine and "\ufffd" not in whole:
                        r.check("stream", text, whole, mine["stream"])
                elif offsets_count(oracle, text):
                    places = byte_places(text)
                    r.check("offsets", text, [places[i] for pair in theirs.offsets for i in pair], mine["trimmed"])
            r.rows += len(batch) if special else 0
    invalid = nasty_strings.invalid_utf8()
    out, _ = ours(driver, model, invalid, "--full", "--hex")
    for data, line in zip(invalid, out):
        mine = json.loads(line)
        r.check("invalid UTF-8", data, oracle.encode(data.decode("utf-8", "replace")).ids, mine.get("ids", mine))
    r.rows += len(invalid)
    print(f"{name:28} {r.rows:7} rows  " + ("all equal" if not r.bad else "DIFFERENT: " + str(r.bad)), flush=True)
    return not r.bad


def against_sentencepiece(driver, name, model, spm, texts, show):
    """Plain text, without what only looks like a special token: SentencePiece has no added tokens."""
    import sentencepiece
    sp = sentencepiece.SentencePieceProcessor(model_file=spm)
    special = [sp.id_to_piece(i) for i in range(sp.get_piece_size()) if sp.is_control(i) or sp.is_unknown(i)]
    special += [f"<extra_id_{i}>" for i in range(100)]
    texts = [t for t in texts if not any(s in t for s in special)]
    r = Report(name, show)
    out, _ = ours(driver, model, texts, "--no-special")
    for text, line in zip(texts, out):
        r.check("ids", text, sp.encode(text), json.loads(line))
    print(f"{name:28} {len(texts):7} rows  " + ("all equal" if not r.bad else "DIFFERENT: " + str(r.bad)), flush=True)
    return not r.bad


def speed(driver, name, model, oracle, texts):
    oracle.no_truncation()
    best_mine, best_theirs, tokens = 1e9, 1e9, 0
    for _ in range(3):
        _, t = ours(driver, model, texts)
        best_mine = min(best_mine, t["encode"])
        start = time.process_time()
        tokens = sum(len(oracle.encode(x).ids) for x in texts)
        best_theirs = min(best_theirs, time.process_time() - start)
    print(f"{name:28} ours {tokens / best_mine / 1e6:6.2f} M tokens/s, tokenizers {tokens / best_theirs / 1e6:6.2f}, "
          f"ratio {best_theirs / best_mine:5.1f}, load {t['load']:.3f} s", flush=True)


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    p = argparse.ArgumentParser()
    p.add_argument("--shared", default=root + "/../shared")
    p.add_argument("--driver", default=root + "/build/release/bench_tokenize_lines")
    p.add_argument("--copies", default=root + "/build/tokenizer-copies")
    p.add_argument("--only", nargs="*")
    p.add_argument("--nasty-only", action="store_true")
    p.add_argument("--speed", action="store_true")
    p.add_argument("--texts", type=int, default=20000, help="how many of them --speed takes")
    p.add_argument("--show", type=int, default=3)
    a = p.parse_args()
    texts = [] if a.nasty_only else data_texts(a.shared + "/data/datasets")
    print(f"{len(texts)} texts of the data sets")
    if a.speed:
        random.Random(1).shuffle(texts)
        texts = texts[: a.texts]
    good = True
    for name, model, make in oracles(a.shared, a.copies):
        if a.only and not any(o in name for o in a.only):
            continue
        oracle = make()
        if a.speed:
            speed(a.driver, name, model, oracle, texts)
            continue
        looks = [t.content for t in oracle.get_added_tokens_decoder().values()]
        good &= compare(a.driver, name, model, oracle, texts, nasty_strings.make(looks), a.show)
    if not a.speed:
        tok = a.shared + "/data/tokenizers/"
        plain = texts + [t for t in nasty_strings.make([]) if "\0" not in t]
        for name, model, spm in (("llama-2 / sentencepiece", a.copies + "/llama-2", tok + "llama-2/tokenizer.model"),
                                 ("mistral-v0.3 / sentencepiece", tok + "mistral-v0.3", tok + "mistral-v0.3/tokenizer.model")):
            if not a.only or any(o in name for o in a.only):
                good &= against_sentencepiece(a.driver, name, model, spm, plain, a.show)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()

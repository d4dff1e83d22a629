#!/usr/bin/env python3
"""Makes tests/golden/tokenizers/: small tokenizers of our own and what Hugging Face's `tokenizers` says about texts.

    python3 tools/make_tokenizer_goldens.py [--shared ../shared]

  <name>/          a tokenizer as a model folder holds it, a few KB, trained here on the sentences below
  cases.json       per folder: texts with ids, ids without special tokens, byte offsets of those, and both ways to decode
  parts.json       every kind of normalizer, pre-tokenizer and decoder by itself: its JSON, an input, the output
  strings.json     strings made to hurt (nasty_strings.py), and
  shared.json      for the tokenizers of ../shared, which are not ours to copy: SHA-256 of the ids (little-endian int32, -1
                   behind each text) and of the decoded texts (NUL behind each) over strings.json and over data sets
"""
import argparse
import base64
import hashlib
import json
import os
import struct
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import check_tokenizers as check  # noqa: E402
import nasty_strings  # noqa: E402
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OUT = ROOT + "/tests/golden/tokenizers"

SENTENCES = """The quick brown fox jumps over the lazy dog. The dog doesn't mind; it's asleep.
In 1999 the fox's den held 12 foxes, 3 badgers and one very old owl.
There was a little girl who lived in a small house near the woods with her mother and her brother.
She said: "I'll go out to play, and you'll stay here until we're back, won't you?"
Naïve café owners über-charged the façade painter. Señor Ñandú está aquí, ¿verdad?
Привет, мир! Как дела? Καλημέρα κόσμε. こんにちは世界。東京タワー。你好，世界！ 안녕하세요 세계.
for (int i = 0; i < n; i++) { sum += a[i] * b[i]; }   // a comment
    def f(x):\n        return x + 1\n\tif x == 3:\n\t\tprint("three")
The price is $3.50 (or 3,50 EUR) — that's 10% off… really?! Yes!!! 🙂🙂 👍
This is the end of the story. They lived happily ever after, and the fox and the dog were friends.
""".split("\n")

TEXTS = ["", " ", "The quick brown fox", " The dog doesn't mind", "the  fox\n\n the owl", "Hello world!", "naïve café", "привет мир", "東京", "안녕", "👍🏽", "🙂 ok",
         "a\u0301e\u0301", "x²≠½", "1999 and 12", "12345", "it's IT'S we're", "\t\tif x:", "   three spaces", "trailing   ", "\r\n", "\u00a0nbsp", "▁mark ▁", "Ġhello", "<0x41>",
         "<s>The fox</s>", "a <s> b", "<mask>", "x <mask> y", "  <mask>  z", "wordy", "a wordy b", "aword", "word word", "<|sep|>", "x<|sep|>y", "\u0000", "q\u0307\u0323", "ﬁne ﷺ", "ＡＢＣ",
         "The end of the story. They lived happily ever after.", "zzzzzzzzzzzzzzzzzzzz", "éééééé", "\ufffd", "for (int i = 0; i < n; i++)", "don't", "ſ's", "'LL", "— … !?", "\u3000x\u2028y"]

ADDED = [AddedToken("<s>", special=True, normalized=False), AddedToken("</s>", special=True, normalized=False),
         AddedToken("<mask>", special=True, normalized=False, lstrip=True),
         AddedToken("word", special=False, normalized=False, single_word=True),
         AddedToken("<|sep|>", special=True, normalized=False, rstrip=True),
         AddedToken("zzzz", special=False, normalized=True)]


def dump(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=True, separators=(",", ":"))
        f.write("\n")


def save(t, name, config=None):
    os.makedirs(f"{OUT}/{name}", exist_ok=True)
    t.save(f"{OUT}/{name}/tokenizer.json", pretty=False)
    if config is not None:
        dump(f"{OUT}/{name}/tokenizer_config.json", config)
    return Tokenizer.from_file(f"{OUT}/{name}/tokenizer.json")


def byte_level():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return t


def sp_bpe(byte_fallback):
    """A SentencePiece-like vocabulary: <unk> <s> </s>, bytes, pieces."""
    t = Tokenizer(models.BPE(unk_token="<unk>"))
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=330, limit_alphabet=110, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False))
    d = json.loads(t.to_str())["model"]
    pieces = ["<unk>", "<s>", "</s>"] + ([f"<0x{b:02X}>" for b in range(256)] if byte_fallback else [])
    pieces += [p for p in d["vocab"] if p not in pieces]
    merges = [tuple(m) for m in d["merges"]]
    return models.BPE({p: i for i, p in enumerate(pieces)}, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=byte_fallback)


def unigram(byte_fallback):
    t = Tokenizer(models.Unigram())
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.train_from_iterator(SENTENCES, trainers.UnigramTrainer(vocab_size=260, unk_token="<unk>", special_tokens=["<pad>", "</s>", "<unk>"], show_progress=False))
    d = json.loads(t.to_str())["model"]
    vocab = [tuple(x) for x in d["vocab"]]
    if byte_fallback:
        vocab += [(f"<0x{b:02X}>", -12.0) for b in range(256)]
    return models.Unigram(vocab, 2, byte_fallback)


def train_sentencepiece(folder, model_type, file, **options):
    import sentencepiece
    with tempfile.TemporaryDirectory() as tmp:
        with open(tmp + "/text", "w") as f:
            f.write("\n".join(s for s in SENTENCES if s))
        if "tsv" in options:
            with open(tmp + "/rules.tsv", "w") as f:
                f.write(options.pop("tsv"))
            options["normalization_rule_tsv"] = tmp + "/rules.tsv"
        sentencepiece.SentencePieceTrainer.train(input=tmp + "/text", model_prefix=tmp + "/m", model_type=model_type, character_coverage=0.98, minloglevel=2, **options)
        os.makedirs(f"{OUT}/{folder}", exist_ok=True)
        data = open(tmp + "/m.model", "rb").read()
        with open(f"{OUT}/{folder}/{file}", "wb") as f:
            f.write(data)


def make_tokenizers():
    made = {}
    t = byte_level()
    t.add_tokens(ADDED)
    t.post_processor = processors.ByteLevel(trim_offsets=True, add_prefix_space=False)
    made["byte_level"] = save(t, "byte_level", {"tokenizer_class": "GPT2Tokenizer", "eos_token": "</s>", "model_max_length": 10 ** 30, "chat_template": "{{ x }}"})

    t = byte_level()
    d = json.loads(t.to_str())
    d["model"]["ignore_merges"] = True
    d["model"]["merges"] = [" ".join(m) for m in d["model"]["merges"]]
    t = Tokenizer.from_str(json.dumps(d))
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.add_tokens(ADDED)
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", t.token_to_id("<s>"))])])
    made["llama3_like"] = save(t, "llama3_like")

    t = byte_level()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=True)])
    t.add_tokens(ADDED[:2])
    ids = [t.token_to_id("<s>"), t.token_to_id("</s>")]
    t.post_processor = processors.RobertaProcessing(("</s>", ids[1]), ("<s>", ids[0]), trim_offsets=True, add_prefix_space=True)
    made["roberta_like"] = save(t, "roberta_like")

    for name, fallback in (("sp_bpe", True), ("sp_bpe_unk", False)):
        t = Tokenizer(sp_bpe(fallback))
        t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
        t.add_special_tokens([AddedToken("<unk>", special=True, normalized=False)] + ADDED[:3])
        t.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A <s> $B", [("<s>", 1), ("</s>", 2)])
        made[name] = save(t, name, {"bos_token": {"__type": "AddedToken", "content": "<s>"}, "eos_token": "</s>", "unk_token": "<unk>", "pad_token": None})

    t = Tokenizer(sp_bpe(True))
    t.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", split=False)
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    t.add_tokens(ADDED)
    made["metaspace_first"] = save(t, "metaspace_first")

    d = json.loads(Tokenizer(sp_bpe(False)).to_str())  # added tokens that are normalized, and a model without its type
    del d["model"]["type"]
    d["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    d["added_tokens"] = [{"id": i, "content": c, "single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": True} for i, c in enumerate(["<unk>", "<s>", "</s>"])]
    d["decoder"] = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}
    made["normalized_added"] = save(Tokenizer.from_str(json.dumps(d)), "normalized_added")

    for name, fallback in (("unigram", False), ("unigram_bytes", True)):
        t = Tokenizer(unigram(fallback))
        t.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
        t.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always")
        t.decoder = decoders.Metaspace("▁", "always") if not fallback else decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace("▁", "always")])
        t.add_special_tokens(["<pad>", "</s>", "<unk>"])
        t.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
        made[name] = save(t, name)

    t = Tokenizer(models.BPE(unk_token="[UNK]", continuing_subword_prefix="##", end_of_word_suffix="</w>"))
    t.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Strip()])
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=240, special_tokens=["[UNK]", "[CLS]", "[SEP]"], continuing_subword_prefix="##", end_of_word_suffix="</w>", show_progress=False))
    t.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    t.decoder = decoders.BPEDecoder("</w>")
    made["affixes"] = save(t, "affixes")

    t = word_piece(True)
    made["bert_like"] = save(t, "bert_like", {"tokenizer_class": "BertTokenizer", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"})
    return made


def word_piece(lower):
    t = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=20))
    t.normalizer = normalizers.BertNormalizer(lowercase=lower)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.train_from_iterator(SENTENCES, trainers.WordPieceTrainer(vocab_size=330, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], limit_alphabet=120, show_progress=False))
    t.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 2), ("[SEP]", 3)])
    t.decoder = decoders.WordPiece("##", True)
    return t


LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def make_other_files(made):
    """The same or similar vocabularies as the other formats hold them."""
    folder = OUT + "/vocab_merges"
    d = json.loads(byte_level().to_str())["model"]
    dump(folder + "/vocab.json", {**d["vocab"], "<|endoftext|>": len(d["vocab"])})
    with open(folder + "/merges.txt", "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "".join(" ".join(m) + "\n" for m in d["merges"]))
    dump(folder + "/tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False, "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"})
    dump(folder + "/special_tokens_map.json", {"pad_token": "<|pad|>", "additional_special_tokens": ["<|x|>"]})
    vocab, merges = models.BPE.read_file(folder + "/vocab.json", folder + "/merges.txt")
    t = Tokenizer(models.BPE(vocab, merges))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens([AddedToken(x, special=True, normalized=False) for x in ("<|endoftext|>", "<|pad|>", "<|x|>")])
    made["vocab_merges"] = t

    folder = OUT + "/vocab_txt"
    os.makedirs(folder, exist_ok=True)
    t = word_piece(False)
    with open(folder + "/vocab.txt", "w", encoding="utf-8") as f:
        f.writelines(s + "\n" for s, _ in sorted(t.get_vocab().items(), key=lambda x: x[1]))
    dump(folder + "/tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"})
    t.model.max_input_chars_per_word = 100
    made["vocab_txt"] = t

    folder = OUT + "/tiktoken"
    os.makedirs(folder, exist_ok=True)
    spelt = {v: k for k, v in pre_tokenizers_bytes().items()}
    ranks = sorted(((i, bytes(spelt[c] for c in s)) for s, i in d["vocab"].items()))
    with open(folder + "/tokenizer.model", "w") as f:
        f.writelines(f"{base64.b64encode(b).decode()} {i}\n" for i, b in ranks)
    n = len(ranks)
    dump(folder + "/tokenizer_config.json", {"bos_token": "<|begin|>", "eos_token": "<|end|>", "added_tokens_decoder": {
        str(n + i): {"content": c, "special": True, "normalized": False, "lstrip": False, "rstrip": False, "single_word": False} for i, c in enumerate(["<|begin|>", "<|end|>", "<|sep|>"])}})
    from transformers.convert_slow_tokenizer import TikTokenConverter
    t = TikTokenConverter(folder + "/tokenizer.model", extra_special_tokens=["<|begin|>", "<|end|>", "<|sep|>"]).converted()
    t.post_processor = processors.TemplateProcessing("<|begin|> $A", "<|begin|> $A $B", [("<|begin|>", n)])
    made["tiktoken"] = t

    train_sentencepiece("spm_bpe", "bpe", "tokenizer.model", vocab_size=460, byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False)
    made["spm_bpe"] = check.llama_from_spm(OUT + "/spm_bpe/tokenizer.model")
    rules = "".join(" ".join(f"{ord(c):X}" for c in a) + "\t" + " ".join(f"{ord(c):X}" for c in b) + "\n"
                    for a, b in (("ﬁ", "fi"), ("\u00a0", " "), ("\u3000", " "), ("\t", " "), ("\r", " "), ("\n", " "), ("e\u0301", "é"), ("a\u0301", "á"), ("…", "..."), ("ﷺ", "صلى"), ("\u200b", ""), ("Ａ", "A")))
    train_sentencepiece("spm_t5", "unigram", "spiece.model", vocab_size=180, hard_vocab_limit=False, tsv=rules, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    dump(OUT + "/spm_t5/tokenizer_config.json", {"tokenizer_class": "T5Tokenizer", "extra_ids": 100, "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"})
    made["spm_t5"] = check.t5_from_spm(OUT + "/spm_t5/spiece.model")


def pre_tokenizers_bytes():
    """byte -> its character"""
    chars = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    table = {b: chr(b) for b in chars}
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + len(table) - len(chars))
    return table


def cases(t):
    out = []
    for text in TEXTS:
        plain = t.encode(text, add_special_tokens=False)
        ids = t.encode(text).ids
        places = check.byte_places(text)
        case = {"text": text, "ids": ids, "plain": plain.ids, "decode": t.decode(ids, skip_special_tokens=False), "skip": t.decode(ids, skip_special_tokens=True)}
        if len(text) < 24:
            case["pair"] = t.encode(text, "The end x").ids
        if check.offsets_count(t, text):
            case["offsets"] = [places[i] for pair in plain.offsets for i in pair]
        out.append(case)
    return out


def parts():
    inputs = ["", "The Fox's  den,\n12 foxes! ", "a\u0301\u0323É ﬁ ²", "-a--b-", "  x\ty  ", "ΣΑΣ İŞ ẞ", "각ᄀ\u1161", "q\u0307\u0323\u0307", "\u0007\u200b\ufeffz", "don't_stop 3.14 ½Ⅷ٣", "東京▁tower ▁", "日本 42kg!?"]
    norms = [{"type": x} for x in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "ByteLevel")]
    norms += [{"type": "Strip", "strip_left": l, "strip_right": r} for l in (True, False) for r in (True, False)]
    norms += [{"type": "BertNormalizer", "clean_text": c, "handle_chinese_chars": h, "strip_accents": a, "lowercase": l} for c, h, a, l in
              ((True, True, None, True), (True, True, None, False), (False, False, True, False), (True, False, False, True), (False, True, False, False))]
    norms += [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}, {"type": "Replace", "pattern": {"Regex": " {2,}|\\p{N}+"}, "content": "#"},
              {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Sequence", "normalizers": [{"type": "StripAccents"}, {"type": "Lowercase"}]}]}]
    splits = [{"type": "Split", "pattern": p, "behavior": b, "invert": i} for b in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous") for i in (False, True)
              for p in ({"String": "-"}, {"Regex": "\\s+|\\d"})]
    pres = splits + [{"type": "ByteLevel", "add_prefix_space": p, "trim_offsets": True, "use_regex": u} for p in (True, False) for u in (True, False)]
    pres += [{"type": "Metaspace", "replacement": "▁", "prepend_scheme": s, "split": x} for s in ("always", "first", "never") for x in (True, False)]
    pres += [{"type": "Digits", "individual_digits": x} for x in (True, False)] + [{"type": "Punctuation", "behavior": b} for b in ("Isolated", "Removed", "Contiguous", "MergedWithPrevious")]
    pres += [{"type": x} for x in ("Whitespace", "WhitespaceSplit", "BertPreTokenizer")] + [{"type": "CharDelimiterSplit", "delimiter": "-"}]
    pres += [{"type": "Split", "pattern": {"Regex": r}, "behavior": "Isolated", "invert": False} for r in
             (r"\w+|[^\w\s]+", r"\p{Lu}\p{Ll}+|\p{N}{1,2}+|.", r"[^\S\n]+|\n", r" ?[^(\s|[.,!?])]+", r"(?i)fox|\h{2}", r"^\S+$", r"[[:space:]]+", r"\p{^L}+", r"[\p{L}\p{M}]+", r"\d{,2}", r"(a|b)\1?|\P{L}")
             if "\\1" not in r]
    pres += [{"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "Digits", "individual_digits": True}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}]}]
    lists = [[], ["▁The", "▁fox", "'s"], ["Ġa", "Ċ", "Ã©", "ð", "Ł", "x y"], ["<0xE6>", "<0x9D>", "<0xB1>", "▁x", "<0xFF>", "<0x41>", "y"], ["the</w>", "end</w>", "."], ["un", "##known", "do", "not", ".", "n't"],
             ["  a ", "##b", "▁▁"], ["<0x+f>", "<0xZZ>", "<0xe2>", "<0x82>"]]
    decs = [{"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            {"type": "Strip", "content": " ", "start": 1, "stop": 1}, {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "Replace", "pattern": {"Regex": "\\w"}, "content": "w"},
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": True},
            {"type": "BPEDecoder", "suffix": "</w>"}, {"type": "WordPiece", "prefix": "##", "cleanup": True}, {"type": "WordPiece", "prefix": "##", "cleanup": False},
            {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}]

    def part(key, value):
        return getattr(Tokenizer.from_str(json.dumps({"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None,
                                                      "model": {"type": "BPE", "vocab": {}, "merges": []}, key: value})), key)

    out = {"normalizers": [], "pre_tokenizers": [], "decoders": []}
    for n in norms:
        f = part("normalizer", n)
        out["normalizers"].append({"json": n, "cases": [[x, f.normalize_str(x)] for x in inputs]})
    for p in pres:
        f = part("pre_tokenizer", p)
        out["pre_tokenizers"].append({"json": p, "cases": [[x, [[s, check.byte_places(x)[a], check.byte_places(x)[b]] for s, (a, b) in f.pre_tokenize_str(x)]] for x in inputs]})
    for d in decs:
        f = part("decoder", d)
        out["decoders"].append({"json": d, "cases": [[x, f.decode(x)] for x in lists if not (x == [] and d["type"] == "BPEDecoder") and not (d.get("stop") and "" in x)]})
    return out


def digests(t, texts):
    ids_hash, text_hash, n = hashlib.sha256(), hashlib.sha256(), 0
    for text in texts:
        ids = t.encode(text).ids
        n += len(ids)
        ids_hash.update(struct.pack(f"<{len(ids) + 1}i", *ids, -1))
        text_hash.update(t.decode(ids, skip_special_tokens=False).encode() + b"\0" + t.decode(ids, skip_special_tokens=True).encode() + b"\0")
    return {"tokens": n, "ids": ids_hash.hexdigest(), "texts": text_hash.hexdigest()}


def shared(folder):
    strings = [s for s in nasty_strings.make(["<s>", "</s>", "<|im_start|>", "<|endoftext|>", "<|eot_id|>", "<|end|>", "<unk>", "<extra_id_0>"]) if len(s) < 120]
    strings = strings[::4] + nasty_strings.HAND
    dump(OUT + "/strings.json", strings)
    lines = open(folder + "/data/datasets/gsm8k/test.jsonl", encoding="utf-8").read().split("\n")[:-1]
    wiki = open(folder + "/data/datasets/text/wiki_demo.txt", encoding="utf-8", newline="").read().removesuffix("\n").split("\n")
    out = {}
    for name, path, make in check.oracles(folder, ROOT + "/build/tokenizer-copies"):
        if "(" in name and name != "mistral-v0.3 (spm)":
            continue
        t = make()
        t.no_truncation()
        out[name.split(" ")[0]] = {"path": os.path.relpath(path, folder), "strings": digests(t, strings), "gsm8k": digests(t, lines[:400]), "wiki": digests(t, wiki[:2000])}
    dump(OUT + "/shared.json", out)


def fuzz_seeds():
    """Inputs of tests/fuzz/fuzz_tokenizer.c: two bytes of length, a text, a file."""
    folder = ROOT + "/tests/fuzz/corpus/fuzz_tokenizer"
    os.makedirs(folder, exist_ok=True)

    def seed(name, text, data):
        with open(f"{folder}/{name}", "wb") as f:
            f.write(struct.pack("<H", len(text)) + text + data)

    def small(**members):
        model = {"type": "BPE", "unk_token": "<u>", "fuse_unk": True, "byte_fallback": True, "vocab": {"<u>": 0, "a": 1, "b": 2, "ab": 3, "\u2581": 4, "\u2581ab": 5, "<0x41>": 6, "\u0120": 7, "##b": 8, "b</w>": 9},
                 "merges": ["a b", ["\u2581", "ab"]]}
        model.update(members.pop("model", {}))
        return json.dumps({"version": "1.0", "added_tokens": [{"id": 10, "content": "<s>", "special": True, "lstrip": True}, {"id": 11, "content": "ab ", "normalized": True, "single_word": True, "rstrip": True}],
                           "model": model, **members}).encode()

    texts = ["ab A<s> abab \u00e9\u0301 ab  b1\n".encode(), b"\xff\xc3 ab\x00<s><s>", "\u2581ab\u1100\u1161\u11a8 1234!? IT'S".encode()]
    p = json.load(open(OUT + "/parts.json"))
    for key, member in (("normalizers", "normalizer"), ("pre_tokenizers", "pre_tokenizer"), ("decoders", "decoder")):
        kinds = {}
        for part in p[key]:
            kinds.setdefault(part["json"]["type"] + str(len(json.dumps(part["json"])) // 40), part["json"])
        for i, (kind, part) in enumerate(kinds.items()):
            seed(f"{member}_{kind}", texts[i % 3], small(**{member: part}))
    seed("affixes", texts[0], small(model={"continuing_subword_prefix": "##", "end_of_word_suffix": "</w>", "merges": []}))
    seed("unigram", texts[0], json.dumps({"model": {"unk_id": 0, "byte_fallback": True, "vocab": [["<u>", 0], ["a", -1.5], ["ab", -2e0], ["<0x41>", -3]]}, "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}], "special_tokens": {"<s>": {"ids": [0]}}}}).encode())
    seed("charsmap", texts[2], json.dumps({"normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(check.proto_of(OUT + "/spm_t5/spiece.model")[1]).decode()}, "model": {"vocab": {"a": 0}, "merges": []}}).encode())
    seed("spm_bpe", texts[0], open(OUT + "/spm_bpe/tokenizer.model", "rb").read())
    seed("spm_unigram", texts[2], open(OUT + "/spm_t5/spiece.model", "rb").read())
    seed("tiktoken", texts[1], b"YQ== 0\nYg== 1\nYWI= 2\nIGFi 3\nIA== 4\n")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--shared", default=ROOT + "/../shared")
    a = p.parse_args()
    made = make_tokenizers()
    make_other_files(made)
    dump(OUT + "/cases.json", {name: cases(t) for name, t in made.items()})
    dump(OUT + "/parts.json", parts())
    fuzz_seeds()
    shared(a.shared)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Makes tests/golden/metrics/text_metrics.json: BLEU by sacrebleu, exact match by str.strip/str.lower, F1 by the
functions of SQuAD's evaluate-v2.0.py. Needs sacrebleu. Run from the root of the repository."""
import collections
import hashlib
import json
import random
import re
import string
import sys
import unicodedata

import sacrebleu
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a


# --- SQuAD 2.0, as published ---
def normalize_answer(s):
    def remove_articles(text):
        return re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", text)

    def remove_punc(text):
        exclude = set(string.punctuation)
        return "".join(ch for ch in text if ch not in exclude)

    return " ".join(remove_articles(remove_punc(s.lower())).split())


def f1(pred, gold):
    gold_toks, pred_toks = normalize_answer(gold).split(), normalize_answer(pred).split()
    common = collections.Counter(gold_toks) & collections.Counter(pred_toks)
    num_same = sum(common.values())
    if not gold_toks or not pred_toks:
        return float(gold_toks == pred_toks)
    if num_same == 0:
        return 0.0
    precision, recall = num_same / len(pred_toks), num_same / len(gold_toks)
    return 2 * precision * recall / (precision + recall)


def score(name, rows):
    bleu = sacrebleu.corpus_bleu([h for h, _ in rows], [[r for _, r in rows]])
    exact = sum(h.strip().lower() == r.strip().lower() for h, r in rows)
    return {"name": name, "rows": rows, "bleu": bleu.score, "counts": [int(c) for c in bleu.counts],
            "totals": [int(t) for t in bleu.totals], "precisions": bleu.precisions, "bp": bleu.bp,
            "sys_len": int(bleu.sys_len), "ref_len": int(bleu.ref_len), "exact_match": 100.0 * exact / len(rows),
            "f1": 100.0 * sum(f1(h, r) for h, r in rows) / len(rows)}


NASTY = [
    "", " ", "\t\n", "a", "The", "Hello, world!", "3.14 is pi, 1,000.5 is not.", "1-2-3 pages 10-20, x-1 -5 5- --",
    "end.", ".start", ",,,...,,", "1.,2,.3", "a.b,c.", "é.é,é", "“the quote” – dash — a.", "<skipped>word<skip",
    "hyphen-\nated line\nbreak", "&quot;q&quot; &amp;lt; &lt;b&gt; &amp;amp; &", "foo&bar", "tab\tsep\x0bvt\x1cfs\x85nel",
    "no\u00a0break\u2003em\u3000ideo\u200bzero", "日本語のテキスト。これは、テスト", "emoji 😀😃.👍,🏽", "e\u0301 combining\u0307.",
    "ΑΣ ΟΔΟΣ Σ ΣΑΣ. Α'Σ ΑΣ\u0301", "İstanbul IĞDIR ıi", "ẞ STRASSE straße ﬁ ǅ Ǆ", "Ⅷ Ⓐ ªº ᾈ", "a an the A AN THE",
    "theatre a-the 'the' the. “the” _the the_ the1 1the", "x-a a.b", "{}[]()`~!@#$%^&*_+=|\\:;\"'<>?/", "$5.00/€6,50 100%",
    "don't can't it's 'quoted'", "\u0000nul\u0000", "a\u0300n", "٣٫٥ ١٢٣", "ａｎ ＡＮ", "x" * 300,
    "the the the the", "of of of of of", "0.5.", "5..", "..5", "a,b,c,d", "1,2,3,4", "A.D. 500-600", "\ufeffbom", "\u2028ls\u2029ps",
    "quick brown fox jumps over the lazy dog", "The quick brown fox jumped over the lazy dog.",
]
WORDS = ("the a an of to in cat sat mat on dog ran, fast. 3.5 1,000 x-1 well- “ok” né É. don't <b> &amp; 日本 语。 ( ) % "
         "Paris London 42 yes no maybe -5 5- ... !?").split()


def noisy(rng, n):
    return " ".join(rng.choice(WORDS) for _ in range(n))


def main():
    rng = random.Random(20)
    corpora = [score("identical", [["the cat sat on the mat .", "the cat sat on the mat ."]]),
               score("no match", [["foo bar baz qux", "one two three four"]]),
               score("short rows", [["yes", "yes"], ["Paris", "Paris"], ["42", "43"]]),
               score("three words", [["a b c", "a b c"]]),
               score("empty hypothesis", [["", "the cat sat on the mat"]]),
               score("empty reference", [["the cat sat on the mat", ""]]),
               score("both empty", [["", ""], [" \n", ""]]),
               score("no four-gram match", [["the cat is on mat here", "the cat sat on the mat"]]),
               score("only unigrams match", [["mat cat the sat on", "the cat sat on the mat"]]),
               score("clipped", [["the the the the the the the", "the cat is on the mat"]]),
               score("longer than reference", [["the cat sat on the mat again and again", "the cat sat on the mat"]]),
               score("case", [["The CAT sat on the mat", "the cat sat on the mat"]]),
               score("nasty against itself", [[s, s] for s in NASTY]),
               score("nasty against next", [[s, NASTY[(i + 1) % len(NASTY)]] for i, s in enumerate(NASTY)]),
               score("nasty padded", [[" \u2003" + s + "\u00a0\n", s] for s in NASTY]),
               score("nasty upper", [[s.upper(), s] for s in NASTY]),
               score("nasty lower", [[s.lower(), s] for s in NASTY])]
    for k in range(40):
        rows = []
        for _ in range(rng.randint(1, 12)):
            ref = noisy(rng, rng.randint(0, 25)).split(" ")
            hyp = list(ref)
            for _ in range(rng.randint(0, 6)):
                if hyp and rng.random() < 0.5:
                    hyp.pop(rng.randrange(len(hyp)))
                else:
                    hyp.insert(rng.randint(0, len(hyp)), rng.choice(WORDS))
            rows.append([" ".join(hyp), " ".join(ref)])
        corpora.append(score(f"random {k}", rows))
    pool = [chr(c) for c in list(range(1, 0x180)) + [0x391, 0x3A3, 0x3C3, 0x2019, 0x301, 0x4E2D, 0x1F600, 0x2003, 0x130]]
    for k in range(10):
        rows = [["".join(rng.choice(pool) for _ in range(rng.randint(0, 60))) for _ in range(2)] for _ in range(20)]
        corpora.append(score(f"characters {k}", [r if rng.random() < 0.5 else [r[0], r[0]] for r in rows]))

    tok = Tokenizer13a()
    tokens = [[s, tok(s.rstrip())] for s in NASTY + ["".join(rng.choice(".,-0a &<é'\n") for _ in range(40)) for _ in range(200)]]

    # Every code point that this Python's Unicode version has, so that the test may not depend on newer ones.
    lower, final, middle = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    skipped = []
    for c in range(0x110000):
        if 0xD800 <= c < 0xE000:
            continue
        if unicodedata.category(chr(c)) == "Cn":
            skipped.append(c)
            continue
        lower.update(chr(c).lower().encode())
        final.update(("A" + chr(c) + "Σ" + chr(c)).lower().encode())
        middle.update((chr(c) + "Σ " + "AΣ" + chr(c) + "b").lower().encode())
    ranges = []
    for c in skipped:
        if ranges and ranges[-1][1] == c - 1:
            ranges[-1][1] = c
        else:
            ranges.append([c, c])
    out = {"sacrebleu": sacrebleu.__version__, "python": sys.version.split()[0], "unicode": unicodedata.unidata_version,
           "unassigned": ranges, "lower_sha256": lower.hexdigest(), "final_sigma_sha256": final.hexdigest(),
           "middle_sigma_sha256": middle.hexdigest(), "spaces": [c for c in range(0x110000) if chr(c).isspace()],
           "tokens": tokens, "corpora": corpora}
    with open("tests/golden/metrics/text_metrics.json", "w", encoding="utf-8") as f:
        json.dump(out, f, ensure_ascii=True, separators=(",", ":"))
        f.write("\n")


if __name__ == "__main__":
    main()

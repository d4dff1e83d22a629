"""Strings made to hurt a tokenizer; the same ones every time. Used by check_tokenizers.py and make_tokenizer_goldens.py."""
import random
import sys
import unicodedata

CATEGORIES = {}
for _c in range(0x110000):
    if not 0xD800 <= _c <= 0xDFFF:
        CATEGORIES.setdefault(unicodedata.category(chr(_c)), []).append(chr(_c))

HAND = [
    "", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\r", "\t", " \n ", "\n \n", " \t\n\r ", "\u00a0", "\u3000", "\u2028x\u2029", "\x85", "\x0b\x0c",
    "a", " a", "a ", " a ", "  a  ", "\ta", "a\t", "\na\n", "hello", "Hello world", " Hello", "  Hello", "Hello  world", "Hello   world  ",
    "it's", "IT'S", "it'ſ", "'S", "'ſ", "'s's", "''s", "'", "''", "'re 've 'm 'll 'd 't", "'RE 'VE 'M 'LL 'D 'T", "I'm you're he'd we'll they've",
    "'lL 'Ll", "a'b", "a's b", " 's", "1's", "'1", "’s", "don’t",
    "1", "12", "123", "1234", "12345678901234567890", "1,234.56", "٣٤٥", "१२३४", "①②③", "½¼", "Ⅷ", "x²", "1a2b3c", "a1b2", "3.14e-10", "0x1F600",
    "!!!", "?!?!", "...", "…", "-->", "== ==", "/* c */", "a.b.c", "foo_bar", "__init__", "fooBarBaz", "$100", "€5", "#tag @user", "\\n", "\\u0041",
    "e\u0301", "\u00e9", "\u1e9b\u0323", "\u0301", "\u0301a", "a\u0301\u0301\u0301", "q\u0307\u0323", "q\u0323\u0307", "\u0344", "\u212b", "\u2126", "\ufb01", "\u00c5",
    "각", "각", "ᄀ", "ᆨ", "한국어", "日本語", "中文字符", "𠀀𠀁", "ไทย", "हिन्दी", "தமிழ்", "עברית", "العربية", "\u202eabc\u202c", "Ελληνικά", "Кириллица", "ქართული",
    "👍", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "❤️", "☺︎", "1️⃣", "\U0001f9d1\U0001f3fd\u200d\U0001f680", "🫠🫨🩷", "\u200d", "\u200c", "\ufe0f", "a\ufe0f", "\ufeff", "\ufeffBOM",
    "\x00", "a\x00b", "\x01\x02\x03", "\x7f", "\x1b[31mred\x1b[0m", "\ufffd", "\ufffd\ufffd", "\uffff", "\U0010ffff", "\ue000", "\u00ad", "so\u00adft",
    "▁", "▁▁", "▁a", "a▁b", " ▁ ", "Ġ", "Ġa", "aĠb", "Ċ", "Ã©", "<0x0A>", "<0xE2><0x96>", "<0xZZ>", "##ing", "</w>", "@@", "Â", "ĉ",
    "a" * 50, "ab" * 50, " " * 50, "\n" * 50, "\t" * 20, "." * 40, "=" * 80, "-" * 33, "1" * 40, "é" * 40, "👍" * 20, "中" * 40, "\u0301" * 30, "a " * 40, " \n" * 30, "'s" * 20,
    " " * 31 + "x", " " * 32 + "x", " " * 16, " " * 24 + "\n" + " " * 8, "\t\t\tif x:\n\t\t\t\treturn", "    def f(self):\n        pass\n", "\r\n\r\n  x",
    "ﷺ", "㎏", "Ⅳ", "ｆｕｌｌ", "ﾊﾝｶｸ", "ß", "ẞ", "İ", "ı", "ŉ", "ǰ", "ΐ", "ﬃ", "ﬅ", "Σας ΣΑΣ", "𝕳𝖊𝖑𝖑𝖔", "ᾳ", "Ǆ", "℻", "㋿", "⁵", "₅",
    "http://example.com/?q=1&r=%20", "user@mail.org", "C:\\path\\file.txt", "<html><b>x</b></html>", "{\"a\": [1, 2.5, null]}", "SELECT * FROM t;",
    "\U00011938", "\U0001e5ee", "a\U0001e5ee", "\u1aff", "\U00010d50", "\U00016ea0", "\ua7cb", "\U0001fae9", "\u20c0", "\U000323b0", "\U0002ebf0", "\U00010d4a", "\u0897a", "\U000113c2",
]


def make(look_alikes, seed=20240607):
    r = random.Random(seed)
    out = list(HAND)
    keys = sorted(CATEGORIES)

    def char():
        return r.choice(CATEGORIES[r.choice(keys)]) if r.random() < 0.6 else chr(r.choice([r.randrange(32, 127), r.randrange(0xa0, 0x250), r.randrange(0x300, 0x370), r.randrange(0x4e00, 0x9fff), r.randrange(0x1f300, 0x1fa00), 0x20, 0x20, 0x0a]))

    for k in keys:  # every category: alone, doubled, between letters, among spaces, with marks
        for _ in range(12):
            c, d = r.choice(CATEGORIES[k]), r.choice(CATEGORIES[k])
            out += [c, "a" + c + "b", " " + c + d + " 1" + c, c + "\u0301" + d]
    spaces = CATEGORIES["Zs"] + ["\t", "\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029", "\u200b", "\u180e", " ", " ", " "]
    for _ in range(150):
        out.append("".join(r.choice(spaces) if r.random() < 0.6 else r.choice("ab1.'\n") for _ in range(r.randrange(1, 24))))
    marks = CATEGORIES["Mn"] + CATEGORIES["Mc"] + CATEGORIES["Me"]
    for _ in range(200):
        out.append("".join(r.choice(marks) if r.random() < 0.5 else r.choice("aeiouqAE \u00e9\u1100\u1161\u11a8\uac00\u0915\u4e2d") for _ in range(r.randrange(1, 14))))
    for _ in range(100):
        out.append("".join(r.choice(["👩", "👨", "🏽", "\u200d", "\ufe0f", "🇩", "🇪", "❤", "🏳", "🌈", " ", "x", "🫠"]) for _ in range(r.randrange(1, 12))))
    for _ in range(100):
        out.append("".join(r.choice("'’`sStTdDmMlLrReEvVſ x1") for _ in range(r.randrange(1, 16))))
    for _ in range(300):
        out.append("".join(char() for _ in range(r.randrange(1, 30))))
    words = ["the", "The", "quick", "brown", "1999", "fox's", "--", "\n\n", "\u00fcber", "na\u00efve", "東京", "\t", "don't", "C++", "e.g.", "\u2014", "…", "😀", "x=y;", "  "]
    for _ in range(150):
        out.append(r.choice(["", " ", "\n"]).join(r.choice(words) for _ in range(r.randrange(1, 15))))
    for _ in range(40):
        out.append(r.choice(["a", "ab", " ", "\n ", "é", "中", "0", "!", "\u0301", "a\u0301", "👍", "▁", "\x00", "\u200d"]) * r.randrange(2, 400))
    looks = list(look_alikes)
    if looks:
        for _ in range(400):
            t = r.choice(looks)
            cut = r.randrange(0, len(t) + 1)
            piece = r.choice([t, t, t, t[:cut], t[cut:], t.upper(), t + t, t[:cut] + " " + t[cut:]])
            out.append(r.choice(["", " ", "  ", "a", "\n", "a ", "é", "\u00a0"]) + piece + r.choice(["", " ", "  ", "b", "\n", " b", "é", r.choice(looks), "\u3000"]))
    return list(dict.fromkeys(out))


def invalid_utf8(seed=7):
    r = random.Random(seed)
    out = [b"\xff", b"a\xffb", b"\xc3", b"\xc3(", b"\xe2\x82", b"\xe2\x82a", b"\xf0\x9f\x98", b"\xf0\x9f\x98x", b"\xed\xa0\x80", b"\xc0\xaf", b"\xe0\x80\x80", b"\xf4\x90\x80\x80",
           b"\xf8\x88\x80\x80\x80", b"\x80", b"\x80\x80\x80", b"\xe2\x28\xa1", b"ok \xe2\x82\xac \xe2\x82 end", b"\xef\xbf\xbd\xff", b"caf\xe9 au lait", b"\xf0\x9f\x91\x8d\xf0\x9f"]
    for _ in range(120):
        out.append(bytes(r.choice([r.randrange(256), r.randrange(32, 127), r.choice(b"\xc3\xa9\xe2\x82\xac\xf0\x9f\x91\x8d")]) for _ in range(r.randrange(1, 20))).replace(b"\n", b"."))
    return out


if __name__ == "__main__":
    print(len(make(["<s>", "</s>", "<|im_end|>"])), file=sys.stderr)

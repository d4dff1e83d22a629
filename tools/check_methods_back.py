#!/usr/bin/env python3
"""Adapters that this program wrote, for every case of tests/golden/methods/, load in peft and give the same logits there.

    build/release/tests/test_methods --keep /tmp/methods && python tools/check_methods_back.py /tmp/methods [NAME ...]

Run by hand; needs what tools/make_method_fixtures.py needs. Fails if a logit differs by more than 1e-4, or if an adapter does not
matter.
"""

import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import numpy
import torch

import make_method_fixtures as fixtures

CASES = os.path.join(fixtures.ROOT, "tests/golden/methods")


def check(c, kept):
    folder = os.path.join(kept, c["name"])
    samples = json.load(open(os.path.join(CASES, c["name"], "case.json")))["batches"][0]
    ours = torch.tensor(numpy.fromfile(os.path.join(folder, "logits.f32"), numpy.float32))
    with torch.no_grad():
        base = torch.cat(fixtures.forward(fixtures.load_base(c, CASES).eval(), samples)).flatten()
        theirs = torch.cat(fixtures.forward(c["load"](c, fixtures.load_base(c, CASES), folder).eval(), samples)).flatten()
    d, off = float((ours - theirs).abs().max()), float((base - theirs).abs().max())
    tolerance = (c["tolerance"] or {}).get("logits", fixtures.TOL_LOGITS)
    good = d <= tolerance and off > fixtures.OFF_FACTOR * tolerance
    print(f"{c['name']:28} logits {d:.1e}, without the adapter {off:.2f}{'' if good else '   WRONG'}")
    return good


def main():
    kept, names, wrong, n = sys.argv[1], sys.argv[2:], 0, 0
    for module, cases in fixtures.all_cases():
        for c in cases:
            if (names and c["name"] not in names and module not in names) or not os.path.isdir(os.path.join(kept, c["name"])):
                continue
            wrong += not check(c, kept)
            n += 1
    print(f"{n} adapters, {wrong} wrong")
    sys.exit(wrong > 0 or n == 0)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Makes tests/golden/packing/bfd.txt with TRL's own packing (pip install trl; its data_utils.py alone is enough).

usage: make_packing_fixtures.py [path of trl/data_utils.py]
Each case is two lines: "row_length: lengths of the samples" and "members of row 0 | members of row 1 | ...".
TRL packs runs of 1000 samples (datasets.map's batch size), so the last case is larger than that.
"""
import importlib.util
import random
import sys

import pyarrow as pa


def load(path):
    if path is None:
        import trl.data_utils as module
        return module
    spec = importlib.util.spec_from_file_location("data_utils", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main():
    trl = load(sys.argv[1] if len(sys.argv) > 1 else None)
    rng = random.Random(7)
    cases = [(4, [4, 2, 3, 1]), (10, [5, 5, 5, 5, 5]), (7, [1] * 20), (6, [6, 6, 6])]
    for n, row in ((50, 64), (200, 100), (333, 37), (1500, 256)):
        cases.append((row, [min(row, 1 + int(rng.expovariate(4 / row))) for _ in range(n)]))
    for row, lengths in cases:
        print(f"{row}: {' '.join(map(str, lengths))}")
        rows = []
        for begin in range(0, len(lengths), 1000):
            run = lengths[begin:begin + 1000]
            ids = [[begin + i] * n for i, n in enumerate(run)]
            packed = trl._pack_bfd(pa.table({"ids": ids}), row)
            for tokens, parts in zip(packed["ids"].to_pylist(), packed["seq_lengths"].to_pylist()):
                at, members = 0, []
                for n in parts:
                    members.append(tokens[at])
                    at += n
                rows.append(" ".join(map(str, members)))
        print(" | ".join(rows))


if __name__ == "__main__":
    main()

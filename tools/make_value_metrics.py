#!/usr/bin/env python3
"""Makes tests/golden/metrics/value_metrics.json: what scikit-learn and scipy say of random numbers and of several classes at once.

    python tools/make_value_metrics.py

Needs scikit-learn and scipy. Never run by the build or the tests. Where scikit-learn answers with nan (a class that all rows or none
have, a correlation with a constant) the figure stands as test_value_metrics.c has it: left out of the mean, or 0.
"""

import json
import math
import os
import random
import warnings

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import (accuracy_score, f1_score, hamming_loss, mean_absolute_error, mean_squared_error, precision_score, recall_score,
                             roc_auc_score, root_mean_squared_error)

warnings.filterwarnings("ignore")
OUT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests/golden/metrics/value_metrics.json")


def or_0(v):
    return 0.0 if math.isnan(v) else float(v)


def numbers(rng, n, k, noise, steps):
    y = np.array([[round(rng.uniform(0, 5) * steps) / steps for _ in range(k)] for _ in range(n)], dtype=np.float32).astype(np.float64)
    z = np.array([[v + noise * rng.gauss(0, 1) if noise < 9 else round(rng.uniform(0, 3)) for v in row] for row in y])
    some = n > 1
    pearson = np.mean([or_0(pearsonr(z[:, i], y[:, i])[0]) if some else 0 for i in range(k)])
    spearman = np.mean([or_0(spearmanr(z[:, i], y[:, i])[0]) if some else 0 for i in range(k)])
    want = dict(mse=mean_squared_error(y, z), rmse=root_mean_squared_error(y, z), mae=mean_absolute_error(y, z), pearson=pearson, spearmanr=spearman,
                combined_score=(pearson + spearman) / 2)
    return dict(problem="regression", threshold=0.5, k=k, y=y.ravel().tolist(), z=z.ravel().tolist(), want=want)


def classes(rng, n, k, skill, threshold, absent):
    y = np.array([[int(rng.random() < 0.4 and i not in absent) for i in range(k)] for _ in range(n)])
    z = np.array([[round(rng.gauss(skill * (2 * v - 1), 1), 2) for v in row] for row in y])
    p = 1 / (1 + np.exp(-z))
    told = (p > threshold).astype(int)
    more = dict(zero_division=0)
    both = [i for i in range(k) if 0 < y[:, i].sum() < n]
    area = float(np.mean([roc_auc_score(y[:, i], z[:, i]) for i in both])) if both else 0.0
    if len(both) == k:
        assert abs(area - roc_auc_score(y, z, average="macro")) < 1e-12
    if k == 1:  # sklearn takes one column for one of two classes
        f = {a: f1_score(y[:, 0], told[:, 0], **more) for a in ("micro", "macro")}
        f["weighted"] = f["micro"]
        precision, recall = precision_score(y[:, 0], told[:, 0], **more), recall_score(y[:, 0], told[:, 0], **more)
    else:
        f = {a: f1_score(y, told, average=a, **more) for a in ("micro", "macro", "weighted")}
        precision, recall = precision_score(y, told, average="micro", **more), recall_score(y, told, average="micro", **more)
    want = dict(accuracy=accuracy_score(y, told), f1=f["micro"], f1_micro=f["micro"], f1_macro=f["macro"], f1_weighted=f["weighted"], precision=precision,
                recall=recall, hamming_loss=hamming_loss(y, told), roc_auc=area)
    return dict(problem="multi_label_classification", threshold=threshold, k=k, y=y.ravel().tolist(), z=z.ravel().tolist(), want=want)


def main():
    rng = random.Random(7)
    out = []
    for k in (1, 3):
        for n in (1, 2, 9, 60):
            for noise, steps in ((0, 1), (0.5, 1e6), (1, 5), (9, 2)):
                out.append(numbers(rng, n, k, noise, steps))
    for k in (1, 2, 5):
        for n in (1, 2, 9, 60):
            for skill in (-1, 0, 1, 4):
                for threshold in (0.5, 0.2):
                    out.append(classes(rng, n, k, skill, threshold, ()))
            out.append(classes(rng, n, k, 0.5, 0.5, (0,)))
    with open(OUT, "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in out) + "\n]\n")
    print(len(out), "cases")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Makes tests/golden/metrics/class_metrics.json: what scikit-learn and seqeval say of random classes and tags.

    python tools/make_class_metrics.py

Needs scikit-learn and seqeval. Never run by the build or the tests.
"""

import json
import os
import random
import warnings

from seqeval.metrics import accuracy_score as tag_accuracy
from seqeval.metrics import f1_score as entity_f1
from seqeval.metrics import precision_score as entity_precision
from seqeval.metrics import recall_score as entity_recall
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, precision_score, recall_score

warnings.filterwarnings("ignore")
OUT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests/golden/metrics/class_metrics.json")


def classes(rng, n_classes, n, agreement, present):
    truth = [rng.choice(present) for _ in range(n)]
    told = [t if rng.random() < agreement else rng.choice(present) for t in truth]
    average = dict(average="binary") if n_classes == 2 else dict(average="macro")
    more = dict(zero_division=0)
    want = dict(accuracy=accuracy_score(truth, told), mcc=matthews_corrcoef(truth, told),
                precision=precision_score(truth, told, **average, **more), recall=recall_score(truth, told, **average, **more),
                f1=f1_score(truth, told, **average, **more), f1_macro=f1_score(truth, told, average="macro", **more),
                f1_micro=f1_score(truth, told, average="micro", **more), f1_weighted=f1_score(truth, told, average="weighted", **more))
    return dict(labels=[f"c{i}" for i in range(n_classes)], entities=False, sequences=[[[t], [p]] for t, p in zip(truth, told)], want=want)


def tags(rng, labels, n, agreement):
    truth, told = [], []
    for _ in range(n):
        t = [rng.randrange(len(labels)) for _ in range(rng.randint(1, 14))]
        truth.append(t)
        told.append([x if rng.random() < agreement else rng.randrange(len(labels)) for x in t])
    a, b = ([[labels[i] for i in s] for s in x] for x in (truth, told))
    want = dict(accuracy=tag_accuracy(a, b), precision=entity_precision(a, b), recall=entity_recall(a, b), f1=entity_f1(a, b))
    return dict(labels=labels, entities=True, sequences=[[t, p] for t, p in zip(truth, told)], want=want)


def main():
    rng = random.Random(5)
    out = []
    for n_classes in (2, 3, 7):
        for n in (1, 2, 9, 60):
            for agreement in (0, 0.5, 0.9, 1):
                out.append(classes(rng, n_classes, n, agreement, list(range(n_classes))))
                if n_classes > 2:  # some classes occur nowhere
                    out.append(classes(rng, n_classes, n, agreement, list(range(1, n_classes))))
        out.append(classes(rng, n_classes, 5, 1, [0]))
    iob = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG"]
    for labels in (iob, ["O", "B-X", "I-X", "E-X", "S-X", "I-Y", "B-Y", "S-Y"], ["B", "I", "O"], ["NOUN", "VERB", "ADJ", "."],
                   ["O", "B-a-b", "I-a-b", "I-a"], ["I-PER", "O", "I-LOC"]):
        for n in (1, 4, 25):
            for agreement in (0, 0.6, 0.95, 1):
                out.append(tags(rng, labels, n, agreement))
    with open(OUT, "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in out) + "\n]\n")
    print(len(out), "cases")


if __name__ == "__main__":
    main()

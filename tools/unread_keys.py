#!/usr/bin/env python3
"""Keys of the configuration whose field nothing outside src/config reads.

A key that is accepted but not read is a bug. This looks for `.field` or `->field` in the sources; a field whose name is
common (seed, r, text) may be found where another struct is meant, so an empty list is necessary, not sufficient.
Exit status 1 when there are such keys. Keys that change nothing on purpose have a note in their row.
"""
import pathlib
import re
import sys

root = pathlib.Path(__file__).resolve().parent.parent
rows = (root / "src/config/run_config.c").read_text()
code = "\n".join(p.read_text() for p in sorted((root / "src").rglob("*.[ch]")) if "config" not in p.parts)
checks = "".join((root / "src/config" / n).read_text() for n in ("run_config_check.c", "run_config_notes.c"))

# these are read where they are derived into another field, or say in one line that they change nothing
derived = {"warmup_steps", "report_to", "fp16", "bf16", "compute", "pad_token", "padding_side", "trust_remote_code",
           "mlflow", "wandb", "tensorboard", "distributed"}
# services that are announced as not active yet
later = {"pf_mlflow_cfg", "pf_wandb_cfg", "pf_tensorboard_cfg", "pf_dist_cfg"}

unread = []
for struct, field in re.findall(r"PF_CFG_(?:[A-Z]+)\((pf_\w+), (\w+),", rows):
    if field in derived or struct in later:
        assert struct in later or re.search(rf"(\.|->){field}\b", checks) or f"{field}, " in rows, field
        continue
    if not re.search(rf"(\.|->){field}\b", code):
        unread.append(f"{struct}.{field}")
for key in unread:
    print(key)
sys.exit(1 if unread else 0)

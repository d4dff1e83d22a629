#!/usr/bin/env python3
"""Checks docs/floors.txt against the includes of src/: an arrow that goes up, or between two folders of one floor, fails.

tools/floors.py          check
tools/floors.py --graph  print who includes whom
"""
import pathlib, re, sys

root = pathlib.Path(__file__).resolve().parent.parent
floor, only = {}, {}
for line in (root / "docs/floors.txt").read_text().splitlines():
    words = line.split("#")[0].split()
    if words:
        floor[words[1]] = int(words[0])
        if len(words) > 2:
            only[words[1]] = set(words[2:])

arrows, bad = {}, []
for path in sorted((root / "src").rglob("*.[ch]")):
    here = path.relative_to(root / "src").parts[0]
    if here not in floor:
        bad.append(f"{path.relative_to(root)}: the folder {here} has no floor in docs/floors.txt")
        continue
    for n, line in enumerate(path.read_text().splitlines(), 1):
        m = re.match(r'\s*#\s*include\s+"([a-z0-9_]+)/', line)
        if not m or m[1] == here or m[1] not in floor:
            continue
        where = f"{path.relative_to(root)}:{n}"
        # The public headers stand below everything; src/peft is told from include/peft by the file that exists.
        name = re.search(r'"([^"]+)"', line)[1]
        if (root / "include" / name).exists() and not (root / "src" / name).exists():
            continue
        arrows.setdefault(here, set()).add(m[1])
        if here in only:
            if m[1] not in only[here]:
                bad.append(f"{where}: {here} may include only {', '.join(sorted(only[here]))} and include/peft, not {m[1]}")
        elif floor[m[1]] >= floor[here]:
            bad.append(f"{where}: {here} (floor {floor[here]}) includes {m[1]} (floor {floor[m[1]]})")

if "--graph" in sys.argv:
    for here in sorted(arrows, key=lambda f: floor[f]):
        print(f"{floor[here]:3} {here}: {' '.join(sorted(arrows[here], key=lambda f: floor[f]))}")
for line in bad:
    print(line, file=sys.stderr)
sys.exit(1 if bad else 0)

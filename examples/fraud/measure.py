#!/usr/bin/env python3
"""Says how good the decisions are: precision and recall against the simulator's labels.

    python3 measure.py out/ledger

The label is a column that travels with the payment (`fraud`, and `scenario`: 1 a large amount, 2 a merchant that was
taken over, 3 a card that was stolen); no rule reads it. Needs Python 3.10 or later.
"""

import collections
import json
import pathlib
import sys

SCENARIOS = {1: "amounts above 220", 2: "merchants taken over", 3: "stolen cards"}


def read(folder):
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        for line in path.read_text("utf-8").splitlines():
            yield json.loads(line)


def share(part, whole):
    return f"{100 * part / whole:5.1f} %" if whole else "    -  "


def main(ledger):
    decisions = collections.Counter()
    for topic in ("approved", "review", "blocked"):
        for row in read(ledger / topic):
            label = row["fraud"]
            if label is not None:
                decisions[topic, row.get("scenario") or 0 if label else 0, label] += 1

    def count(topics, scenarios=(0, 1, 2, 3), labels=(True, False)):
        return sum(n for (t, s, l), n in decisions.items() if t in topics and s in scenarios and l in labels)

    everything = ("approved", "review", "blocked")
    print(f"{count(everything)} payments, {count(everything, labels=(True,))} of them fraud")
    for what, topics in (("blocked", ("blocked",)), ("blocked or reviewed", ("blocked", "review"))):
        right, given = count(topics, labels=(True,)), count(topics)
        precision, recall = share(right, given), share(right, count(everything, labels=(True,)))
        print(f"{what:20} {given:8}   precision {precision}   recall {recall}")
        for scenario, name in SCENARIOS.items():
            found, all_of_it = count(topics, (scenario,), (True,)), count(everything, (scenario,), (True,))
            print(f"  of {name:24}{found:7} of {all_of_it:6} {share(found, all_of_it)}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    main(pathlib.Path(sys.argv[1]))

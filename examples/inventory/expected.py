#!/usr/bin/env python3
"""Holds the inventory to its promises, from what went in and what came out, without SQL and without Millstream.

    python3 expected.py --check out

Needs Python 3.10 or later. It checks:

1. each movement is answered exactly once;
2. the answer is the right one, with the right figures: the movements of an SKU and a warehouse are decided again here,
   in the order in which they came;
3. at no time is there less than nothing on hand, reserved or available;
4. the stock at the end is the sum of the movements that were accepted, to the unit.
"""

import collections
import json
import pathlib
import sys

SHOWN_MAX = 3
ANSWER = ("accepted", "reason", "on_hand", "reserved")


def read(folder):
    """The rows of a topic, in order within a partition."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        for line in path.read_text("utf-8").splitlines():
            yield json.loads(line)


class Shelf:
    """One SKU in one warehouse."""

    def __init__(self):
        self.on_hand = 0
        self.open = {}

    def reserved(self):
        return sum(self.open.values())

    def grant(self, movement):
        """Whether the movement can be; then it is carried out."""
        kind, quantity, reservation = movement["kind"], movement["quantity"], movement["reservation_id"]
        available = self.on_hand - self.reserved()
        if kind in ("receipt", "return"):
            self.on_hand += quantity
        elif kind == "sale" and quantity <= available:
            self.on_hand -= quantity
        elif kind == "adjustment" and available + quantity >= 0:
            self.on_hand += quantity
        elif kind == "reserve" and quantity <= available:
            self.open[reservation] = quantity
        elif kind == "confirm" and self.open.get(reservation) == quantity:
            self.on_hand -= self.open.pop(reservation)
        elif kind in ("cancel", "expire") and self.open.get(reservation) == quantity:
            del self.open[reservation]
        else:
            return False
        return True


def reason(movement, granted):
    if granted:
        return None
    return "no open reservation" if movement["kind"] in ("confirm", "cancel", "expire") else "not in stock"


def decide(movements):
    """The right answers by movement, and the shelves at the end."""
    shelves, answers = collections.defaultdict(Shelf), {}
    for movement in movements:
        shelf = shelves[movement["sku"], movement["warehouse"]]
        granted = shelf.grant(movement)
        answers[movement["movement_id"]] = (granted, reason(movement, granted), shelf.on_hand, shelf.reserved())
    return answers, shelves


def summed(movements, accepted):
    """What is on hand when the accepted movements are only added up."""
    signs = {"receipt": 1, "return": 1, "adjustment": 1, "sale": -1, "confirm": -1}
    sums = collections.Counter()
    for movement in movements:
        if movement["movement_id"] in accepted:
            sums[movement["sku"], movement["warehouse"]] += signs.get(movement["kind"], 0) * movement["quantity"]
    return sums


def check(folder):
    movements = list(read(folder / "events"))
    decisions = list(read(folder / "decisions"))
    faults = []
    times = collections.Counter(d["movement_id"] for d in decisions)
    asked = {m["movement_id"] for m in movements}
    faults += [f"{id} is not answered" for id in sorted(asked - times.keys())]
    faults += [f"{id} is answered and was not asked" for id in sorted(times.keys() - asked)]
    faults += [f"{id} is answered {n} times" for id, n in times.items() if n > 1]

    expected, shelves = decide(movements)
    for decision in decisions:
        id, found = decision["movement_id"], tuple(decision[c] for c in ANSWER)
        if found != expected.get(id, found):
            faults.append(f"{id}: expected {expected[id]}, found {found}")
        if min(decision["on_hand"], decision["reserved"], decision["on_hand"] - decision["reserved"]) < 0:
            faults.append(f"{id}: below zero: {found}")

    accepted = {d["movement_id"] for d in decisions if d["accepted"]}
    sums = summed(movements, accepted)
    stock = {(s["sku"], s["warehouse"]): s for s in read(folder / "stock")}
    for place in sorted(sums.keys() | stock.keys()):
        row, shelf = stock.get(place), shelves[place]
        found = (row["on_hand"], row["reserved"]) if row else None
        if row is None and sums[place] == 0 and shelf.on_hand == 0:
            continue
        if found != (sums[place], shelf.reserved()):
            faults.append(f"stock of {place}: {found}; the movements add up to {(sums[place], shelf.reserved())}")

    kinds = collections.Counter((m["kind"], m["movement_id"] in accepted) for m in movements)
    for kind in sorted({kind for kind, _ in kinds}):
        print(f"{kind:11} {kinds[kind, True]:8} accepted {kinds[kind, False]:8} refused")
    on_hand = sum(s["on_hand"] for s in stock.values())
    print(f"{len(movements)} movements of {len(shelves)} shelves; {on_hand} pieces on hand, {sum(sums.values())} by the movements")
    print("\n".join(faults[:SHOWN_MAX] + [f"{len(faults)} FAULTS"]) if faults else "all promises are kept")
    return 1 if faults else 0


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] != "--check":
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    sys.exit(check(pathlib.Path(sys.argv[2])))

#!/usr/bin/env python3
"""Computes bars and positions from ticks and orders, without SQL and without Millstream, and compares to the last digit.

    python3 expected.py --check out      # out/events is what went in, out/bars and out/accounts what came out

Needs Python 3.10 or later. Of a table (positions, exposure) the last row of each key counts. A topic whose folder is
not there is left out and said so.
"""

import collections
import datetime
import json
import pathlib
import sys
from decimal import Decimal

SECOND = 1_000_000
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
LIMIT = 300_000
SHOWN_MAX = 3


def micros(text):
    return (datetime.datetime.fromisoformat(text.replace("Z", "+00:00")) - EPOCH) // datetime.timedelta(microseconds=1)


def read(folder):
    """The rows of a topic, in order within a partition; numbers are exact."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        for line in path.read_text("utf-8").splitlines():
            row = json.loads(line, parse_float=Decimal)
            for column in ("at", "window_start", "window_end"):
                if column in row:
                    row[column] = micros(row[column])
            for column in ("price", "open", "high", "low", "close", "cost", "net", "gross", "largest"):
                if column in row:
                    row[column] = Decimal(row[column])
            yield row


def bars(ticks, size):
    """Ticks are put in the order of time first: no two have the same."""
    found = {}
    for tick in sorted(ticks, key=lambda t: t["at"]):
        start = tick["at"] // size * size
        price, volume = tick["price"], tick["volume"]
        bar = found.get((tick["symbol"], start))
        if bar is None:
            found[tick["symbol"], start] = [start + size, price, price, price, price, volume, 1]
        else:
            bar[2:] = max(bar[2], price), min(bar[3], price), price, bar[5] + volume, bar[6] + 1
    return {key: tuple(bar) for key, bar in found.items()}


def accepted(orders):
    return [o for o in orders if o["side"] in ("buy", "sell") and o["quantity"] * o["price"] <= LIMIT]


def positions(orders):
    found = collections.defaultdict(lambda: [0, Decimal(0), 0])
    for order in accepted(orders):
        sign = 1 if order["side"] == "buy" else -1
        row = found[order["account"], order["symbol"]]
        row[:] = row[0] + sign * order["quantity"], row[1] + sign * order["quantity"] * order["price"], row[2] + 1
    return {key: tuple(row) for key, row in found.items()}


def exposure(orders):
    found = collections.defaultdict(lambda: [Decimal(0), Decimal(0), Decimal(0)])
    for order in accepted(orders):
        value = order["quantity"] * order["price"]
        row = found[order["account"],]
        row[:] = row[0] + (value if order["side"] == "buy" else -value), row[1] + value, max(row[2], value)
    return {key: tuple(row) for key, row in found.items()}


BAR = ("window_end", "open", "high", "low", "close", "volume", "ticks")


def check(folder):
    ticks, orders = (list(read(folder / "events" / topic)) for topic in ("ticks", "orders"))
    print(f"{len(ticks)} ticks, {len(orders)} orders, {len(accepted(orders))} of them within the limit")
    topics = (
        ("bars/bars_1s", lambda: bars(ticks, SECOND), ("symbol", "window_start"), BAR, False),
        ("bars/bars_1m", lambda: bars(ticks, 60 * SECOND), ("symbol", "window_start"), BAR, False),
        ("accounts/positions", lambda: positions(orders), ("account", "symbol"), ("position", "cost", "orders"), True),
        ("accounts/exposure", lambda: exposure(orders), ("account",), ("net", "gross", "largest"), True),
    )
    wrong = 0
    for name, compute, key, columns, table in topics:
        if not (folder / name).is_dir():
            print(f"{name}: left out, it is not there")
            continue
        expected, found, twice = compute(), {}, 0
        for row in read(folder / name):
            at = tuple(row[c] for c in key)
            twice += at in found and not table
            found[at] = tuple(row[c] for c in columns)
        differ = [at for at in expected.keys() | found.keys() if expected.get(at) != found.get(at)]
        wrong += bool(differ or twice)
        print(f"{name}: {len(expected)} rows, " + (f"{len(differ)} DIFFER, {twice} TWICE" if differ or twice else "agree"))
        for at in sorted(differ)[:SHOWN_MAX]:
            print(f"  {at}: expected {expected.get(at)}, found {found.get(at)}")
    print("all figures agree" if not wrong else f"{wrong} topics differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] != "--check":
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    sys.exit(check(pathlib.Path(sys.argv[2])))

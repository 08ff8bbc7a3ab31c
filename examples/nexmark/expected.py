#!/usr/bin/env python3
"""Computes the answers to the queries from the events, without SQL and without Millstream, and compares.

    python3 expected.py --check out      # out/events is what went in, out/answers what came out

Needs Python 3.10 or later. Answers are compared as multisets: the order of rows across partitions means nothing. Of a
table (q17, q18) the last row of each key counts. A query whose folder is not there is left out and said so.
"""

import collections
import datetime
import decimal
import json
import pathlib
import re
import sys

SECOND = 1_000_000
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
CHANNELS = {"apple": "0", "google": "1", "facebook": "2", "baidu": "3"}
SHOWN_MAX = 3


def micros(text):
    """Microseconds since 1970 of a time as it is written."""
    return (datetime.datetime.fromisoformat(text.replace("Z", "+00:00")) - EPOCH) // datetime.timedelta(microseconds=1)


def read(folder):
    """The rows of a topic, in order within a partition."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        for line in path.read_text("utf-8").splitlines():
            row = json.loads(line, parse_float=decimal.Decimal)
            for column in ("at", "expires", "window_start", "window_end"):
                if row.get(column) is not None:
                    row[column] = micros(row[column])
            yield row


def pick(row, *columns):
    return tuple(row[c] for c in columns)


def tumble(at, size):
    start = at // size * size
    return start, start + size


def q0(events):
    return [pick(b, "auction", "bidder", "price", "at", "extra") for b in events["bid"]]


def q1(events):
    rate = decimal.Decimal("0.908")
    return [(b["auction"], b["bidder"], rate * b["price"], b["at"], b["extra"]) for b in events["bid"]]


def q2(events):
    return [pick(b, "auction", "price", "at") for b in events["bid"] if b["auction"] % 123 == 0]


def q5(events):
    slide, size = 2 * SECOND, 10 * SECOND
    windows = collections.defaultdict(collections.Counter)
    for bid in events["bid"]:
        last = bid["at"] // slide * slide
        for start in range(last - size + slide, last + slide, slide):
            windows[start][bid["auction"]] += 1
    answers = []
    for start, counts in windows.items():
        most = max(counts.values())
        answers += [(auction, n, start, start + size) for auction, n in counts.items() if n == most]
    return answers


def q7(events):
    windows = collections.defaultdict(list)
    for bid in events["bid"]:
        windows[tumble(bid["at"], 10 * SECOND)].append(bid)
    answers = []
    for window, bids in windows.items():
        highest = max(b["price"] for b in bids)
        answers += [pick(b, "auction", "price", "bidder", "at") + window for b in bids if b["price"] == highest]
    return answers


def q8(events):
    sellers = {(a["seller"], tumble(a["at"], 10 * SECOND)) for a in events["auction"]}
    persons = {(p["id"], p["name"], tumble(p["at"], 10 * SECOND)) for p in events["person"]}
    return [(id, name) + window for id, name, window in persons if (id, window) in sellers]


def q11(events):
    gap, times = 10 * SECOND, collections.defaultdict(list)
    for bid in events["bid"]:
        times[bid["bidder"]].append(bid["at"])
    answers = []
    for bidder, all_times in times.items():
        all_times.sort()
        first = last = all_times[0]
        count = 0
        for at in all_times:
            if at - last > gap:
                answers.append((bidder, count, first, last + gap))
                first, count = at, 0
            last, count = at, count + 1
        answers.append((bidder, count, first, last + gap))
    return answers


def q12(events):
    counts = collections.Counter((b["bidder"], tumble(b["at"], 10 * SECOND)) for b in events["bid"])
    return [(bidder, n) + window for (bidder, window), n in counts.items()]


def q17(events):
    prices = collections.defaultdict(list)
    for bid in events["bid"]:
        day = (EPOCH + datetime.timedelta(microseconds=bid["at"])).date().isoformat()
        prices[bid["auction"], day].append(bid["price"])
    answers = []
    for key, all_prices in prices.items():
        low = sum(p < 10_000 for p in all_prices)
        high = sum(p >= 1_000_000 for p in all_prices)
        n, total = len(all_prices), sum(all_prices)
        answers.append(key + (n, low, n - low - high, high, min(all_prices), max(all_prices), average(total, n), total))
    return answers


def average(total, n):
    """To the cent: how many digits the average has is the engine's business."""
    return (decimal.Decimal(total) / n).quantize(decimal.Decimal("0.01"))


def q18(events):
    last = collections.defaultdict(int)
    for bid in events["bid"]:
        key = pick(bid, "auction", "bidder")
        last[key] = max(last[key], bid["at"])
    # Which of two bids at one instant is the last is open.
    return [key + (at,) for key, at in last.items()]


def q21(events):
    answers = []
    for bid in events["bid"]:
        channel = CHANNELS.get(bid["channel"].lower())
        if channel is None:
            found = re.search(r"(&|^)channel_id=([^&]*)", bid["url"])
            channel = found and found.group(2)
        if channel is not None:
            answers.append(pick(bid, "auction", "bidder", "price", "channel") + (channel, bid["at"]))
    return answers


def q22(events):
    answers = []
    for bid in events["bid"]:
        parts = bid["url"].split("/") + [""] * 6
        answers.append(pick(bid, "auction", "bidder", "price", "channel", "at") + tuple(parts[3:6]))
    return answers


# Each query with the columns that its answers are compared by, and the key where it is a table.
QUERIES = {
    "q0": (q0, ("auction", "bidder", "price", "at", "extra"), None),
    "q1": (q1, ("auction", "bidder", "price", "at", "extra"), None),
    "q2": (q2, ("auction", "price", "at"), None),
    "q5": (q5, ("auction", "num", "window_start", "window_end"), None),
    "q7": (q7, ("auction", "price", "bidder", "at", "window_start", "window_end"), None),
    "q8": (q8, ("id", "name", "window_start", "window_end"), None),
    "q11": (q11, ("bidder", "bids", "window_start", "window_end"), None),
    "q12": (q12, ("bidder", "bids", "window_start", "window_end"), None),
    "q17": (
        q17,
        ("auction", "day", "total_bids", "rank1_bids", "rank2_bids", "rank3_bids", "min_price", "max_price", "avg_price", "sum_price"),
        ("auction", "day"),
    ),
    "q18": (q18, ("auction", "bidder", "at"), ("auction", "bidder")),
    "q21": (q21, ("auction", "bidder", "price", "channel", "channel_id", "at"), None),
    "q22": (q22, ("auction", "bidder", "price", "channel", "at", "dir1", "dir2", "dir3"), None),
}  # fmt: skip


def answered(folder, columns, key):
    rows = read(folder)
    if key:
        rows = {pick(row, *key): row for row in rows}.values()
    for row in rows:
        if "avg_price" in row:
            row["avg_price"] = decimal.Decimal(row["avg_price"]).quantize(decimal.Decimal("0.01"))
        yield tuple(number(row[c]) for c in columns)


def number(value):
    """Decimals may be written as text."""
    if isinstance(value, decimal.Decimal) and value == value.to_integral_value():
        return int(value)
    return value


def check(folder):
    events = {topic: list(read(folder / "events" / topic)) for topic in ("person", "auction", "bid")}
    print(", ".join(f"{len(rows)} {topic}s" for topic, rows in events.items()))
    wrong = 0
    for name, (query, columns, key) in QUERIES.items():
        if not (folder / "answers" / name).is_dir():
            print(f"{name}: left out, there is no {folder / 'answers' / name}")
            continue
        expected = collections.Counter(tuple(map(number, row)) for row in query(events))
        found = collections.Counter(answered(folder / "answers" / name, columns, key))
        missing, surplus = expected - found, found - expected
        wrong += bool(missing or surplus)
        agree = "agree" if not missing and not surplus else f"{missing.total()} MISSING, {surplus.total()} TOO MANY"
        print(f"{name}: {expected.total()} rows, {agree}")
        for what, rows in (("missing", missing), ("too many", surplus)):
            for row in sorted(rows, key=str)[:SHOWN_MAX]:
                print(f"  {what}: {row}")
    print("all answers agree" if not wrong else f"{wrong} queries differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] != "--check":
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    sys.exit(check(pathlib.Path(sys.argv[2])))

#!/usr/bin/env python3
"""Runs the golden queries with state as a batch, by DataFusion, and compares.

    batch.py [--only TEXT] [--verbose] [FILE ...]

A stream that has ended and a batch over the same events must give the same rows; their order is the stream's own. The
queries are those of crates/flow/tests/golden_state; what is expected there came from the stream. Windows are computed here
a second time, by their definition and not by panes. Needs the Python package `datafusion`.

Not compared, and counted: queries that are refused, cases with events that fail (a batch fails as a whole), and cases
whose name says `(stream: why)`, because they mean something else over a batch.
"""

import argparse
import collections
import datetime
import decimal
import json
import pathlib
import re
import sys

import pyarrow as pa
from datafusion import SessionConfig, SessionContext

GOLDEN = pathlib.Path(__file__).parent.parent / "crates/flow/tests/golden_state"
EPOCH = datetime.datetime(1970, 1, 1)
LENGTHS = {"microsecond": 1, "millisecond": 1000, "second": 10**6, "minute": 60 * 10**6, "hour": 3600 * 10**6,
           "day": 86400 * 10**6}

# Wider than any decimal of a golden file.
decimal.getcontext().prec = 80


def arrow_type(text):
    text = text.rstrip("!")
    if found := re.fullmatch(r"decimal\((\d+),\s*(\d+)\)", text):
        return pa.decimal128(int(found[1]), int(found[2]))
    if found := re.fullmatch(r"array<(.+)>", text):
        return pa.list_(arrow_type(found[1]))
    return {"string": pa.string(), "json": pa.string(), "int": pa.int32(), "bigint": pa.int64(), "double": pa.float64(),
            "bool": pa.bool_(), "timestamp": pa.timestamp("us"), "date": pa.date32()}[text]


def time_of(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(datetime.timezone.utc).replace(tzinfo=None)


def value_of(value, kind):
    if value is None:
        return None
    if pa.types.is_timestamp(kind):
        return time_of(value)
    if pa.types.is_date(kind):
        return datetime.date.fromisoformat(value)
    if pa.types.is_decimal(kind):
        return decimal.Decimal(str(value)).quantize(decimal.Decimal(1).scaleb(-kind.scale))
    if pa.types.is_floating(kind):
        return float(value)
    return value


class Topic:
    def __init__(self, spec, body):
        self.time, self.key, self.is_table = None, None, False
        words = iter(spec)
        for word in words:
            if word == "table":
                self.is_table = True
            elif word == "key":
                self.key = next(words)
            elif word == "time":
                self.time = (next(words), float(next(words)))
        lines = [line.split(": ", 1) for line in body.splitlines() if line.strip()]
        self.columns = {name.strip(): arrow_type(kind.strip()) for name, kind in lines}
        self.empty()

    def empty(self):
        self.rows, self.late, self.greatest, self.newest = [], [], None, {}

    def add(self, text, deleted=False):
        row = json.loads(text, parse_float=decimal.Decimal)
        row = {name: value_of(row.get(name), kind) for name, kind in self.columns.items()}
        late = False
        if self.time and (at := row[self.time[0]]) is not None:
            behind = datetime.timedelta(seconds=self.time[1])
            late = self.greatest is not None and at < self.greatest - behind
            self.greatest = at if self.greatest is None else max(self.greatest, at)
        self.rows.append(row)
        self.late.append(late)
        if self.is_table:
            self.newest.pop(row[self.key], None)
            if not deleted:
                self.newest[row[self.key]] = row

    def table(self, with_late):
        if self.is_table:
            rows = list(self.newest.values())
        else:
            rows = [row for row, late in zip(self.rows, self.late) if with_late or not late]
        schema = pa.schema(list(self.columns.items()))
        return pa.Table.from_pylist(rows, schema=schema)


def blocks(text):
    starts = [0] + [found.start() + 1 for found in re.finditer(r"\n@", text)] + [len(text)]
    return [text[a:b] for a, b in zip(starts, starts[1:])]


def micros(interval):
    total = 0
    for number, unit in re.findall(r"([\d.]+)\s*([a-z]+?)s?\b", interval.lower()):
        total += int(decimal.Decimal(number) * LENGTHS[unit])
    return total


def windowed(found, sql):
    """What a window's table function is, in SQL."""
    function, source, time, lengths = found[1].lower(), found[2], found[3], found[4]
    # An event without a time is in no window.
    source = f"(SELECT * FROM {source} WHERE {time} IS NOT NULL)"
    sizes = [micros(text) for text in re.findall(r"INTERVAL\s*'([^']+)'", lengths, re.I)]
    at = f"arrow_cast(arrow_cast({time}, 'Timestamp(Microsecond, None)'), 'Int64')"
    floor = lambda value, by: f"({value} - (({value} % {by}) + {by}) % {by})"
    window = lambda start, end, rest: (
        f"(SELECT * EXCEPT (ws_, we_), arrow_cast(ws_, 'Timestamp(Microsecond, None)') AS window_start, "
        f"arrow_cast(we_, 'Timestamp(Microsecond, None)') AS window_end FROM "
        f"(SELECT s_.*, {start} AS ws_, {end} AS we_ FROM {source} s_{rest}))")
    if function == "tumble":
        [size] = sizes
        return window(floor(at, size), f"{floor(at, size)} + {size}", "")
    if function == "hop":
        slide, size = sizes
        n = size // slide + 1
        inner = (f"(SELECT s_.*, {floor(at, slide)} - n_.value * {slide} AS ws_ FROM {source} s_ "
                 f"CROSS JOIN generate_series(0, {n}) n_)")
        return (f"(SELECT * EXCEPT (ws_), arrow_cast(ws_, 'Timestamp(Microsecond, None)') AS window_start, "
                f"arrow_cast(ws_ + {size}, 'Timestamp(Microsecond, None)') AS window_end FROM {inner} "
                f"WHERE {at} < ws_ + {size})")
    if function == "cumulate":
        step, size = sizes
        inner = (f"(SELECT s_.*, {floor(at, size)} AS ws_, {floor(at, size)} + n_.value * {step} AS we_ FROM {source} s_ "
                 f"CROSS JOIN generate_series(1, {size // step}) n_)")
        return (f"(SELECT * EXCEPT (ws_, we_), arrow_cast(ws_, 'Timestamp(Microsecond, None)') AS window_start, "
                f"arrow_cast(we_, 'Timestamp(Microsecond, None)') AS window_end FROM {inner} WHERE {at} < we_)")
    [gap] = sizes
    group = re.search(r"GROUP\s+BY\s+(.+?)(\s+HAVING|\)|$)", sql[found.end():], re.I | re.S)
    keys = [key.strip() for key in group[1].split(",")] if group else []
    keys = [key for key in keys if not key.lower().split(".")[-1].startswith("window_")]
    by = f"PARTITION BY {', '.join(keys)} " if keys else ""
    steps = (f"(SELECT s_.*, {at} AS at_, CASE WHEN {at} - lag({at}) OVER ({by}ORDER BY {time}) < {gap} THEN 0 ELSE 1 END "
             f"AS new_ FROM {source} s_)")
    islands = f"(SELECT *, sum(new_) OVER ({by}ORDER BY at_) AS island_ FROM {steps})"
    of = f"PARTITION BY {', '.join(keys + ['island_'])}"
    return (f"(SELECT * EXCEPT (at_, new_, island_), "
            f"arrow_cast(min(at_) OVER ({of}), 'Timestamp(Microsecond, None)') AS window_start, "
            f"arrow_cast(max(at_) OVER ({of}) + {gap}, 'Timestamp(Microsecond, None)') AS window_end FROM {islands})")


CALL = re.compile(r"\b(tumble|hop|cumulate|session)\(\s*(\w+|\(.+?\))\s*,\s*(\w+)\s*((?:,\s*INTERVAL\s*'[^']+'\s*)+)\)", re.I | re.S)


def as_batch(sql):
    while found := CALL.search(sql):
        source = "rows_" if found[2].startswith("(") else found[2]
        behind = sql[found.end():]
        alias = re.match(r"\s+(AS\s+)?(?!where|group|join|on|left|full|inner|union|having|qualify|order|right|cross)\w+", behind, re.I)
        sql = sql[:found.start()] + windowed(found, sql) + ("" if alias else f" {source}") + behind
    return re.sub(r"TIMESTAMP '([^']+?)Z'", r"TIMESTAMP '\1'", sql)


def plain(value):
    """A value as both sides write it."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", value):
            return time_of(value).isoformat()
        return value
    if isinstance(value, datetime.datetime):
        return value.replace(tzinfo=None).isoformat()
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, (int, float, decimal.Decimal)):
        return float(f"{float(value):.9g}")
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value]


def as_lines(rows):
    return collections.Counter(json.dumps(plain(row), sort_keys=True) for row in rows)


def run(topics, sql, late):
    context = SessionContext(SessionConfig().with_target_partitions(1))
    for name, topic in topics.items():
        table = topic.table(late)
        context.register_record_batches(name, [table.to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]])
    return context.sql(as_batch(sql)).to_pylist()


def cases(path):
    topics, case = {}, None
    for block in blocks(path.read_text()):
        head, _, body = block.partition("\n")
        words = head.split()
        if words and words[0] == "@topic":
            topics[words[1]] = Topic(words[2:], body)
        elif words and words[0] == "@feed":
            for topic in topics.values():
                topic.empty()
            for line in body.splitlines():
                if line.strip() and not line.strip().startswith("#"):
                    name, text = line.strip().split(" ", 1)
                    topics[name.removeprefix("-")].add(text, deleted=name.startswith("-"))
        elif words and words[0] == "@case":
            case = (head.removeprefix("@case").strip(), body.strip())
        elif words and words[0] == "@expect" and case:
            yield topics, case[0], case[1], body.strip().splitlines()
            case = None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="only cases with this text in their name")
    parser.add_argument("--verbose", action="store_true", help="print the SQL of each difference")
    parser.add_argument("files", nargs="*", type=pathlib.Path, default=sorted(GOLDEN.glob("*.test")))
    args = parser.parse_args()
    counts, wrong = collections.Counter(), []
    for path in args.files:
        for topics, name, sql, expected in cases(path):
            if args.only not in name:
                continue
            skip = [line for line in expected if re.match(r"error\[|failed |derived |dropped ", line)]
            if skip or "(stream" in name:
                counts["refused" if any(line.startswith("error[") for line in skip) else "failing" if skip else "stream only"] += 1
                continue
            late = not any(line.startswith("late ") for line in expected)
            stream = as_lines(json.loads(line, parse_float=decimal.Decimal) for line in expected[1:] if line.startswith("{"))
            try:
                batch = as_lines(run(topics, sql, late))
            except Exception as error:  # what DataFusion says is what there is to say
                batch = collections.Counter()
                wrong.append((path.name, name, [f"! {str(error).splitlines()[0]}"], sql))
                continue
            counts["compared"] += 1
            if stream != batch:
                lines = [f"- {line}" for line in (batch - stream)] + [f"+ {line}" for line in (stream - batch)]
                wrong.append((path.name, name, lines, sql))
    for file, name, lines, sql in wrong:
        print(f"{file}: {name}: batch (-) and stream (+) differ")
        print("\n".join(lines[:10]))
        if args.verbose:
            print(as_batch(sql))
    print(f"{counts['compared']} cases compared, {len(wrong)} differ; not compared: {counts['refused']} refused, "
          f"{counts['failing']} with failing events, {counts['stream only']} that mean something else over a batch")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

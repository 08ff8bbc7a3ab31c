#!/usr/bin/env python3
"""Runs the Nexmark example as a stream for several seeds, and its queries as a batch by DataFusion on the same events.

    nexmark_batch.py BINARY [--seeds 1,2,3] [--events 200000] [--keep]

What the stream wrote must be what the batch computes; of a table topic the last row of each key counts. Windows are
computed by their definition, as in batch.py. Needs the Python package `datafusion`.
"""

import argparse
import collections
import decimal
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import pyarrow as pa
from datafusion import SessionConfig, SessionContext

from batch import arrow_type, as_batch, as_lines, value_of

QUERIES = ["q0", "q1", "q2", "q5", "q7", "q8", "q11", "q12", "q17", "q18", "q21", "q22"]
TABLES = {"q17": ("auction", "day"), "q18": ("auction", "bidder")}
# Of several bids at one instant any may be the last.
LOOSE = {"q18": ("price", "channel", "url", "extra")}


def rows_of(folder):
    for path in sorted(folder.rglob("*.ndjson")):
        for line in path.read_text().splitlines():
            yield json.loads(line, parse_float=decimal.Decimal)


def columns_of(pipeline, topic):
    text = re.search(rf"^  {topic}:\n(?:    .*\n)*?    columns:\n((?:      .*\n)+)", pipeline, re.M)[1]
    lines = [re.match(r"\s*(\w+): (\S+)", line) for line in text.splitlines()]
    return {found[1]: arrow_type(found[2]) for found in lines}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    example = pathlib.Path(__file__).parent.parent / "examples/nexmark"
    wrong = 0
    for seed in args.seeds.split(","):
        home = pathlib.Path(tempfile.mkdtemp(prefix="nexmark-")) / "nexmark"
        shutil.copytree(example, home, ignore=shutil.ignore_patterns("log", "out"))
        path = home / "pipeline.yaml"
        text = re.sub(r"count: \d+", f"count: {args.events}", re.sub(r"seed: \d+", f"seed: {seed}", path.read_text()))
        path.write_text(text)
        ran = subprocess.run([str(args.binary.resolve()), "run", str(home), "--drain"], capture_output=True, text=True)
        if ran.returncode != 0:
            sys.exit(f"the stream ended with {ran.returncode}:\n{ran.stderr}")
        context = SessionContext(SessionConfig().with_target_partitions(1))
        for topic in ("person", "auction", "bid"):
            columns = columns_of(text, topic)
            rows = [{c: value_of(row.get(c), kind) for c, kind in columns.items()} for row in rows_of(home / "out/events" / topic)]
            table = pa.Table.from_pylist(rows, schema=pa.schema(list(columns.items())))
            context.register_record_batches(topic, [table.to_batches()])
            if topic == "bid":
                context.register_record_batches("bid_by_bidder", [table.to_batches()])
        for query in QUERIES:
            sql = re.sub(r"--.*", "", (home / "sql" / f"{query}.sql").read_text())
            stream = list(rows_of(home / "out/answers" / query))
            if query in TABLES:
                stream = list({tuple(row[c] for c in TABLES[query]): row for row in stream}.values())
            batch = context.sql(as_batch(sql)).to_pylist()
            for row in (row for rows in (stream, batch) for row in rows if query in LOOSE):
                [row.pop(column, None) for column in LOOSE[query]]
            ours, theirs = as_lines(stream), as_lines(batch)
            if ours != theirs:
                wrong += 1
                print(f"seed {seed}, {query}: {sum(ours.values())} rows from the stream, {sum(theirs.values())} from the batch")
                for line in list(theirs - ours)[:3]:
                    print(f"- {line}")
                for line in list(ours - theirs)[:3]:
                    print(f"+ {line}")
        print(f"seed {seed}: {len(QUERIES)} queries on {args.events} events compared")
        if not args.keep:
            shutil.rmtree(home.parent)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

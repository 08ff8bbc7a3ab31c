#!/usr/bin/env python3
"""Measures the queries of examples/nexmark through the durable log: events per CPU second, and the peak memory.

    python3 benchmarks/nexmark.py target/release/millstream
    python3 benchmarks/nexmark.py target/release/millstream --events 10000000 --queries q5,q7 --work /mnt/disk

1. The events are made once and written to Arrow files, so that no query pays for making them.
2. Each query runs alone, as a pipeline of its own: files -> topics -> the query -> its topic. Every hop is durable, and the
   process ends when all is processed. Its CPU time is what the system says it used, user and kernel, from start to end.
3. The same is run without the query: what reading the files and writing the topics costs. `net` leaves that out, so it is
   the query with reading its topics and writing its answers durably. The row `-` is that of the bids.

Events are those of all three kinds (1 person, 3 auctions, 46 bids of 50), as the benchmark counts, whatever kinds a query
reads; a query that reads bids only is given bids only. Needs Python 3.9 or later and nothing else.

Beside them stand published figures of others, per core: Flink 1.13 with RocksDB as github.com/nexmark/nexmark gives them
(its own CPU accounting, its generator included, nothing written); Feldera on 16 cores as github.com/feldera/feldera gives
them in benchmark/README.md, divided by 16 (its generator included). They come from other machines: an order of magnitude,
not a race.
"""

import argparse
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SQL = ROOT / "examples" / "nexmark" / "sql"
PARTITIONS = 2
MIB = 1 << 20

COLUMNS = {
    "person": "id bigint!, name string!, email_address string!, credit_card string!, city string!, state string!, "
    "at timestamp!, extra string!",
    "auction": "id bigint!, item_name string!, description string!, initial_bid bigint!, reserve bigint!, at timestamp!, "
    "expires timestamp!, seller bigint!, category bigint!, extra string!",
    "bid": "auction bigint!, bidder bigint!, price bigint!, channel string!, url string!, at timestamp!, extra string!",
}
KEYS = {"person": ["id"], "auction": ["seller"], "bid": ["auction"]}
# What each query reads, by what its input is parted (else by the topic's usual key), and the key of the table it updates.
QUERIES = {
    "q0": ("bid", None, None),
    "q1": ("bid", None, None),
    "q2": ("bid", None, None),
    "q5": ("bid", None, None),
    "q7": ("bid", None, None),
    "q8": ("person auction", None, None),
    "q11": ("bid", ["bidder"], None),
    "q12": ("bid", ["bidder"], None),
    "q17": ("bid", None, ["auction", "day"]),
    "q18": ("bid", None, ["auction", "bidder"]),
    "q21": ("bid", None, None),
    "q22": ("bid", None, None),
}
# Published, events per second and core: Flink 1.13, Feldera (its 16 cores' figure).
PUBLISHED = {
    "q0": (155_020, 6_973_987),
    "q1": (157_940, 6_595_871),
    "q2": (175_210, 6_748_549),
    "q5": (22_140, 6_589_786),
    "q7": (12_330, 3_136_763),
    "q8": (146_140, 6_641_870),
    "q11": (39_700, None),
    "q12": (75_670, 6_682_259),
    "q17": (116_800, 3_870_269),
    "q18": (53_700, 1_358_216),
    "q21": (98_490, 6_634_820),
    "q22": (129_960, 6_305_568),
}
FELDERA_CORES = 16


def columns(topic):
    return dict(column.split(" ") for column in COLUMNS[topic].split(", "))


def topics(names, key=None):
    return {
        name: {
            "partitions": PARTITIONS,
            "key": key or KEYS[name],
            "columns": columns(name),
            "event_time": {"column": "at", "max_out_of_orderness": "0s"},
        }
        for name in names
    }


def pipeline(directory, sync, **parts):
    """A directory with a pipeline; JSON is YAML as well."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    root = {
        "version": 1,
        "pipeline": "nexmark",
        "log": {"embedded": {"dir": "log", "sync": sync}},
        "server": {"listen": "127.0.0.1:0"},
        "defaults": {"topic": {"partitions": PARTITIONS}},
        **parts,
    }
    (directory / "pipeline.yaml").write_text(json.dumps(root, indent=1))
    return directory


def run(millstream, directory):
    """Runs a pipeline to its end: seconds elapsed, CPU seconds, peak bytes."""
    began = time.monotonic()
    with open(directory / "stderr", "wb") as errors:
        child = subprocess.Popen([millstream, "run", str(directory), "--drain"], stdout=errors, stderr=errors)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise RuntimeError((directory / "stderr").read_text(errors="replace")[-2000:])
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def make(millstream, work, events, seed):
    """Writes the events as Arrow files; gives the file patterns by topic."""
    sources = {
        topic: {"generate": {"kind": f"nexmark_{topic}s", "seed": seed, "count": events}, "to": topic} for topic in COLUMNS
    }
    # One partition, so that the files are in the order of time.
    made = {name: {**topic, "partitions": 1} for name, topic in topics(COLUMNS).items()}
    sinks = {"files": {"from": list(COLUMNS), "file": {"path": "out", "format": "arrow"}}}
    directory = pipeline(work / "events", "never", topics=made, sources=sources, sinks=sinks)
    run(millstream, directory)
    shutil.rmtree(directory / "log")
    return {topic: str(directory / "out" / topic / "*.arrows") for topic in COLUMNS}


def measure(millstream, work, files, sync, reads, key=None, table=None, query=None):
    """Runs a query, or only what feeds it."""
    sources = {f"in_{topic}": {"file": {"path": files[topic], "format": "arrow"}, "to": topic} for topic in reads}
    made, parts = topics(reads, key), {}
    if table:
        made[query] = {"kind": "table", "key": table}
    if query:
        parts["services"] = {query: {"from": reads, "sql_file": str(SQL / f"{query}.sql"), "to": query}}
    directory = pipeline(work / "run", sync, topics=made, sources=sources, **parts)
    try:
        return run(millstream, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def fdatasync_p50(directory):
    path, times = directory / "probe", []
    with open(path, "wb") as file:
        for _ in range(200):
            began = time.monotonic()
            file.write(b"x" * 4096)
            file.flush()
            os.fdatasync(file.fileno())
            times.append(time.monotonic() - began)
    path.unlink()
    return sorted(times)[len(times) // 2]


def machine():
    model = platform.machine()
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system().lower()} {platform.release()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("millstream", type=os.path.abspath, help="the binary, a release build")
    parser.add_argument("--events", type=int, default=5_000_000, help="of all three kinds together (default 5,000,000)")
    parser.add_argument("--queries", default=",".join(QUERIES), help="which ones, with commas between")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each query; the best counts (default 3)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sync", default="group", help="the log's sync mode (default group)")
    parser.add_argument("--work", type=pathlib.Path, help="a directory on the disk to measure (default: a temporary one)")
    args = parser.parse_args()
    names = args.queries.split(",")
    unknown = [name for name in names if name not in QUERIES]
    if unknown:
        parser.error(f"no query is named {', '.join(unknown)}; there are {', '.join(QUERIES)}")
    work = pathlib.Path(tempfile.mkdtemp(prefix="nexmark-", dir=args.work))
    try:
        return report(args, names, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def report(args, names, work):
    version = subprocess.run([args.millstream, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"machine   {machine()}")
    print(f"build     {version}, {args.millstream}")
    print(f"disk      fdatasync of 4 KiB p50 {fdatasync_p50(work) * 1e6:.0f} us")
    print(f"sync      {args.sync}")
    print(f"events    {args.events:,} of all kinds, seed {args.seed}; {PARTITIONS} partitions; best of {args.repeat}")
    print()
    files = make(args.millstream, work, args.events, args.seed)
    print("query  events/CPU s         net  events/s   CPU s  peak MiB   | Flink/core  Feldera/core")
    feeds, failed = {}, 0

    def best(reads, **how):
        runs = [measure(args.millstream, work, files, args.sync, reads, **how) for _ in range(args.repeat)]
        return min(runs, key=lambda run: run[1])

    def feed(reads):
        if tuple(reads) not in feeds:
            feeds[tuple(reads)] = best(reads)
        return feeds[tuple(reads)]

    row("-", args.events, feed(["bid"]), None)
    for name in names:
        reads, key, table = QUERIES[name]
        reads = reads.split()
        try:
            row(name, args.events, best(reads, key=key, table=table, query=name), feed(reads)[1])
        except RuntimeError as e:
            failed += 1
            print(f"{name:5}  failed: {(str(e).strip().splitlines() or ['no message'])[0]}", flush=True)
    return 1 if failed else 0


def row(name, events, run, feed_cpu):
    wall, cpu, rss = run
    net = "-" if feed_cpu is None else f"{events / max(cpu - feed_cpu, 1e-3):,.0f}"
    flink, feldera = PUBLISHED.get(name, (None, None))
    others = [f"{flink:,.0f}" if flink else "-", f"{feldera / FELDERA_CORES:,.0f}" if feldera else "-"]
    ours = f"{name:5}  {events / cpu:12,.0f} {net:>11} {events / wall:9,.0f} {cpu:7.2f} {rss / MIB:9.0f}"
    print(f"{ours}   | {others[0]:>10}  {others[1]:>12}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

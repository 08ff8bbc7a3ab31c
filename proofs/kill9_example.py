#!/usr/bin/env python3
"""Kills an example with SIGKILL at random moments, again and again, and then checks its results from outside.

    kill9_example.py BINARY EXAMPLE [--kills 100] [--least 0.05] [--most 0.6] [--seed N] [--replace OLD=NEW ...]
                     [--postgres] [--keep]

The example is copied, run with --drain, killed after a random time, and run again, until it was killed KILLS times or has
finished by itself; a last run drains it. Then its own independent checker, `expected.py --check out`, computes what must
have come out from what came in. --replace changes words of pipeline.yaml, so that there is enough to do (`count: 50000=count:
2000000`). --postgres starts a PostgreSQL and takes the `#` from the lines `# state: {postgres: …}`, so that the state is
kept there. Killed fewer times than asked is a failure: the proof would prove less than it says.
"""

import argparse
import contextlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import postgres

COMMENTED = "# state: {postgres:"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("example", type=pathlib.Path)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--least", type=float, default=0.05, help="the shortest life, in seconds")
    parser.add_argument("--most", type=float, default=0.6, help="the longest life, in seconds")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--replace", action="append", default=[], metavar="OLD=NEW")
    parser.add_argument("--postgres", action="store_true", help="keep the state in a PostgreSQL of the proof's own")
    parser.add_argument("--keep", action="store_true", help="leave the directory where it is")
    args = parser.parse_args()
    with postgres.server() if args.postgres else contextlib.nullcontext() as url:
        if url is not None:
            os.environ["DATABASE_URL"] = url
        prove(args)


def prove(args):
    chance = random.Random(args.seed)
    work = pathlib.Path(tempfile.mkdtemp(prefix="kill9-"))
    home = work / args.example.resolve().name
    shutil.copytree(args.example, home, ignore=shutil.ignore_patterns("log", "out", "data.log"))
    pipeline = home / "pipeline.yaml"
    text = pipeline.read_text()
    for change in args.replace:
        old, new = change.split("=", 1)
        if old not in text:
            sys.exit(f"pipeline.yaml does not have `{old}`")
        text = text.replace(old, new)
    if args.postgres:
        if COMMENTED not in text:
            sys.exit(f"pipeline.yaml has no line `{COMMENTED} …`")
        text = text.replace(COMMENTED, COMMENTED.removeprefix("# "))
    pipeline.write_text(text)
    command = [str(args.binary.resolve()), "run", str(home), "--drain"]
    begun, kills, finished = time.time(), 0, False
    while kills < args.kills and not finished:
        with open(work / "stderr", "ab") as stderr:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
            try:
                code = process.wait(timeout=chance.uniform(args.least, args.most))
                if code != 0:
                    sys.exit(f"the example ended with {code}: see {work / 'stderr'}")
                finished = True
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
    last = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if last.returncode != 0:
        sys.exit(f"the last run ended with {last.returncode}:\n{last.stderr}\nin {work}")
    checker = subprocess.run([sys.executable, str(home / "expected.py"), "--check", str(home / "out")], text=True)
    print(f"{home.name}{', state in PostgreSQL' if args.postgres else ''}: killed {kills} times in {time.time() - begun:.0f} s, seed {args.seed}; "
          f"the checker says {'yes' if checker.returncode == 0 else 'NO'}")
    if checker.returncode != 0 or kills < args.kills:
        print(f"killed {kills} of {args.kills} times; what is left is in {work}", file=sys.stderr)
        sys.exit(1)
    if not args.keep:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()

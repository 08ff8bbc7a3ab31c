#!/usr/bin/env python3
"""Computes what the flights pipeline must put out, without SQL and without Millstream.

    python3 expected.py                  # writes expected.json
    python3 expected.py --check out      # compares out/delayed, out/on_time, out/diverted, out/hours with it

Every figure is exact: integers, or decimals written as strings. Needs Python 3.9 or later and, before
Python 3.14, the program `zstd`.

For each topic: `sums` leave out nulls, `nulls` and `trues` count them per column, `keys_sha256` is the
hash of the sorted lines `carrier,flight,time_hour`, and `rows_sha256` is the hash of the sorted rows
with every column.
"""

import collections
import csv
import datetime
import decimal
import gzip
import hashlib
import io
import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
DATA = HERE / "data"
TOPICS = ("delayed", "on_time", "diverted")
# The topics of delays by the hour, and whose they are.
HOURS = {"carrier_hours": "carrier", "airport_hours": "origin"}
HOUR_COUNTS = ("flights", "arrived", "delayed", "dep_delay", "arr_delay", "worst")
RULES = ("departed", "tail_number_known", "goes_somewhere")
COLUMNS = (
    "carrier", "flight", "flight_code", "airline", "tailnum", "manufacturer", "model", "seats", "plane_age",
    "origin", "dest", "dest_name", "route", "flight_date", "time_hour", "scheduled_at", "departed_at",
    "part_of_day", "distance", "air_time", "speed_mph", "dep_delay", "arr_delay", "made_up", "is_delayed",
    "seat_miles", "temp", "precip", "visib", "wind_gust", "bad_weather", "has_airport", "has_plane", "has_weather",
)  # fmt: skip
INTEGERS = ("flight", "seats", "plane_age", "distance", "air_time", "speed_mph", "dep_delay", "arr_delay", "made_up", "seat_miles")
DECIMALS = {"temp": 2, "precip": 2, "visib": 2, "wind_gust": 5}
BOOLEANS = ("is_delayed", "bad_weather", "has_airport", "has_plane", "has_weather")
TIMES = ("time_hour", "scheduled_at", "departed_at")


def read(name):
    """Returns the rows of a data file as dictionaries; an empty cell is None."""
    path = next(p for p in (DATA / f"{name}.csv{end}" for end in ("", ".gz", ".zst")) if p.exists())
    raw = path.read_bytes()
    if path.suffix == ".gz":
        raw = gzip.decompress(raw)
    elif path.suffix == ".zst":
        raw = unpack_zstd(raw)
    for row in csv.DictReader(io.StringIO(raw.decode("utf-8"), newline="")):
        yield {column: value or None for column, value in row.items()}


def unpack_zstd(raw):
    try:
        from compression import zstd
    except ImportError:
        return subprocess.run(["zstd", "-dc"], input=raw, stdout=subprocess.PIPE, check=True).stdout
    return zstd.decompress(raw)


def whole(value):
    return None if value is None else int(value)


def exact(value):
    return None if value is None else decimal.Decimal(value)


def broken_rules(flight):
    """Returns the names of the rules that the flight does not meet."""
    met = {
        "departed": flight["dep_time"] is not None,
        "tail_number_known": flight["tailnum"] is not None,
        "goes_somewhere": flight["origin"] != flight["dest"] and int(flight["distance"]) > 0,
    }
    return tuple(rule for rule in RULES if not met[rule])


def topic_of(row):
    if row["arr_delay"] is None:
        return "diverted"
    return "delayed" if row["arr_delay"] >= 15 else "on_time"


def derive(flight, lookups):
    """Returns the output row of one flight that passed the rules."""
    none = collections.defaultdict(lambda: None)
    airline = lookups["airlines"][flight["carrier"]]
    airport = lookups["airports"].get(flight["dest"], none)
    plane = lookups["planes"].get(flight["tailnum"], none)
    weather = lookups["weather"].get((flight["origin"], flight["time_hour"]), none)

    number = {c: whole(flight[c]) for c in ("year", "month", "day", "hour", "minute", "dep_delay", "arr_delay", "air_time", "distance", "flight")}
    seats, built = whole(plane["seats"]), whole(plane["year"])
    landed = number["arr_delay"] is not None
    hour = datetime.datetime.strptime(flight["time_hour"], "%Y-%m-%dT%H:%M:%SZ")
    scheduled = hour + datetime.timedelta(minutes=number["minute"])
    departed = scheduled + datetime.timedelta(minutes=number["dep_delay"])
    row = {c: flight[c] for c in ("carrier", "tailnum", "origin", "dest")}
    row.update({c: number[c] for c in ("flight", "distance", "air_time", "dep_delay", "arr_delay")})
    row.update({c: exact(weather[c]) for c in DECIMALS})
    row.update(
        flight_code=f"{flight['carrier']}{number['flight']}",
        airline=airline["name"],
        manufacturer=plane["manufacturer"],
        model=plane["model"],
        seats=seats,
        plane_age=None if built is None else number["year"] - built,
        dest_name=airport["name"],
        route=f"{flight['origin']}-{flight['dest']}",
        flight_date=datetime.date(number["year"], number["month"], number["day"]).isoformat(),
        time_hour=utc(hour),
        scheduled_at=utc(scheduled),
        departed_at=utc(departed),
        part_of_day=("night", "morning", "afternoon", "evening")[number["hour"] // 6],
        speed_mph=None if number["air_time"] is None else number["distance"] * 60 // number["air_time"],
        made_up=number["dep_delay"] - number["arr_delay"] if landed else None,
        is_delayed=number["arr_delay"] >= 15 if landed else None,
        seat_miles=None if seats is None else seats * number["distance"],
        bad_weather=is_bad(weather),
        has_airport=airport is not none,
        has_plane=plane is not none,
        has_weather=weather is not none,
    )
    return row


def is_bad(weather):
    """True, False or, as in SQL, None: a true part decides, else an unknown part leaves it open."""
    precip, visib = exact(weather["precip"]), exact(weather["visib"])
    parts = (
        None if precip is None else precip >= decimal.Decimal("0.1"),
        None if visib is None else visib < 3,
        (exact(weather["wind_gust"]) or 0) >= 40,
    )
    return True if True in parts else None if None in parts else False


def utc(time):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def canonical(row):
    """One text per row that does not depend on how numbers and times are written."""
    cells = []
    for column in COLUMNS:
        value = row[column]
        if isinstance(value, decimal.Decimal):
            value = format(value.normalize(), "f") if value else "0"
        cells.append("" if value is None else str(value).lower() if isinstance(value, bool) else str(value))
    return json.dumps(cells, ensure_ascii=False)


def sha256_of(lines):
    return hashlib.sha256("".join(f"{line}\n" for line in sorted(lines)).encode("utf-8")).hexdigest()


def figures(rows):
    """Returns the figures of one topic."""
    sums = {c: sum(row[c] for row in rows if row[c] is not None) for c in INTEGERS}
    for column, places in DECIMALS.items():
        total = sum((row[column] for row in rows if row[column] is not None), decimal.Decimal(0))
        sums[column] = f"{total:.{places}f}"
    nulls = {c: sum(row[c] is None for row in rows) for c in COLUMNS}
    return {
        "rows": len(rows),
        "without": {what: sum(row[f"has_{what}"] is False for row in rows) for what in ("airport", "plane", "weather")},
        "sums": sums,
        "nulls": {column: n for column, n in nulls.items() if n},
        "trues": {c: sum(row[c] is True for row in rows) for c in BOOLEANS},
        "carriers": counts(row["carrier"] for row in rows),
        "parts_of_day": counts(row["part_of_day"] for row in rows),
        "scheduled_at": [min(row["scheduled_at"] for row in rows), max(row["scheduled_at"] for row in rows)],
        "keys_sha256": sha256_of(f"{row['carrier']},{row['flight']},{row['time_hour']}" for row in rows),
        "rows_sha256": sha256_of(map(canonical, rows)),
    }


def hours(rows, of):
    """Returns the delays of each carrier or airport by the hour: (whose, hour) to the figures in HOUR_COUNTS."""
    found = {}
    for row in rows:
        figures = found.setdefault((row[of], row["time_hour"]), [0, 0, 0, 0, None, None])
        figures[0] += 1
        figures[3] += row["dep_delay"]
        delay = row["arr_delay"]
        if delay is not None:
            figures[1] += 1
            figures[2] += delay >= 15
            figures[4] = (figures[4] or 0) + delay
            figures[5] = delay if figures[5] is None else max(figures[5], delay)
    return found


def hour_figures(found):
    """Returns the figures of one topic of delays by the hour."""
    columns = list(zip(*found.values()))
    sums = {name: sum(n for n in column if n is not None) for name, column in zip(HOUR_COUNTS, columns) if name != "worst"}
    lines = (json.dumps([*key, *values]) for key, values in found.items())
    return {"rows": len(found), "sums": sums, "rows_sha256": sha256_of(lines)}


def counts(values):
    return dict(sorted(collections.Counter(values).items()))


def keyed(name, *columns):
    """Returns a lookup by its key and stops when a key comes twice."""
    found = {}
    for row in read(name):
        key = tuple(row[c] for c in columns) if len(columns) > 1 else row[columns[0]]
        if key in found:
            sys.exit(f"{name}: the key {key} comes twice")
        found[key] = row
    return found


def compute():
    lookups = {
        "airlines": keyed("airlines", "carrier"),
        "airports": keyed("airports", "faa"),
        "planes": keyed("planes", "tailnum"),
        "weather": keyed("weather", "origin", "time_hour"),
    }
    read_count, rules, sets, refused = 0, dict.fromkeys(RULES, 0), collections.Counter(), []
    out = {topic: [] for topic in TOPICS}
    for flight in read("flights"):
        read_count += 1
        broken = broken_rules(flight)
        if broken:
            refused.append(flight)
            sets[",".join(broken)] += 1
            for rule in broken:
                rules[rule] += 1
            continue
        row = derive(flight, lookups)
        out[topic_of(row)].append(row)
    valid = [row for rows in out.values() for row in rows]
    assert len(valid) + len(refused) == read_count
    return {
        "lookups": {name: len(rows) for name, rows in lookups.items()},
        "flights": read_count,
        "valid": len(valid),
        "without": {what: sum(not row[f"has_{what}"] for row in valid) for what in ("airport", "plane", "weather")},
        "dead_letters": {
            "validate": {
                "rows": len(refused),
                "rules": rules,
                "rule_sets": dict(sorted(sets.items())),
                "carriers": counts(flight["carrier"] for flight in refused),
                "keys_sha256": sha256_of(f"{f['carrier']},{int(f['flight'])},{f['time_hour']}" for f in refused),
            }
        },
        "topics": {topic: figures(rows) for topic, rows in out.items()},
        "hours": {topic: hour_figures(hours(valid, of)) for topic, of in HOURS.items()},
    }


def lines_of(folder, topic):
    """Reads the NDJSON that the pipeline wrote for a topic: a file, or all files of a folder."""
    at = folder / topic
    files = sorted(p for p in at.rglob("*") if p.is_file()) if at.is_dir() else sorted(folder.glob(f"{topic}*"))
    for path in files:
        for line in path.read_text("utf-8").splitlines():
            yield json.loads(line, parse_float=decimal.Decimal)


def instant(text):
    time = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return utc(time.astimezone(datetime.timezone.utc) if time.tzinfo else time)


def written(folder, topic):
    rows = []
    for row in lines_of(folder, topic):
        row = {column: row.get(column) for column in COLUMNS}
        for column in DECIMALS:
            row[column] = exact(row[column])
        for column in TIMES:
            if row[column] is not None:
                row[column] = instant(row[column])
        rows.append(row)
    return rows


def written_hours(folder, topic, of):
    """Each hour may come once."""
    found = {}
    for row in lines_of(folder, topic):
        key = row[of], instant(row["window_start"])
        if key in found:
            sys.exit(f"{topic}: {key} comes twice")
        found[key] = [row[name] for name in HOUR_COUNTS]
    return found


def differences(expected, found, at=""):
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in sorted(expected.keys() | found.keys()):
            yield from differences(expected.get(name), found.get(name), f"{at}.{name}")
    elif expected != found:
        yield f"{at[1:]}: expected {expected}, found {found}"


def check(folder):
    everything = json.loads((HERE / "expected.json").read_text("utf-8"))
    expected, wrong = everything["topics"], []
    for topic in TOPICS:
        rows = written(folder, topic)
        found = figures(rows) if rows else {"rows": 0}
        wrong += differences(expected[topic], found, f".{topic}")
    for topic, of in HOURS.items():
        found = hour_figures(written_hours(folder / "hours", topic, of))
        wrong += differences(everything["hours"][topic], found, f".hours.{topic}")
    print("\n".join(wrong) or "all figures agree")
    return 1 if wrong else 0


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--check":
        sys.exit(check(pathlib.Path(sys.argv[2])))
    if len(sys.argv) > 1:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    text = json.dumps(compute(), indent=2, ensure_ascii=False)
    (HERE / "expected.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()

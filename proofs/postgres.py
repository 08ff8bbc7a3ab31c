"""A PostgreSQL of a proof's own: its files in a temporary directory, on a free port, gone behind the `with`.

The programs are looked for in MILLSTREAM_POSTGRES, on the search path, and where Debian puts them.
"""

import contextlib
import glob
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time

NOBODY = 65534  # PostgreSQL does not run as root.


def programs():
    """The directory of `initdb` and `postgres`, or None."""
    on_path = shutil.which("initdb")
    places = [os.environ.get("MILLSTREAM_POSTGRES"), on_path and os.path.dirname(os.path.realpath(on_path))]
    places += sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)
    for place in filter(None, places):
        if all(os.access(pathlib.Path(place) / name, os.X_OK) for name in ("initdb", "postgres")):
            return pathlib.Path(place)
    return None


@contextlib.contextmanager
def server():
    """Starts a server and gives its address."""
    place = programs()
    if place is None:
        raise SystemExit("PostgreSQL is not installed: set MILLSTREAM_POSTGRES to the directory of `initdb`")
    as_user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    home, password = pathlib.Path(tempfile.mkdtemp(prefix="postgres-")), secrets.token_hex(8)
    (home / "password").write_text(password)
    if as_user:
        for path in (home, home / "password"):
            os.chown(path, NOBODY, NOBODY)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = dict(cwd=home, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **as_user)
    made = subprocess.run(
        [place / "initdb", "-D", home / "data", "--auth=scram-sha-256", "--username=bob", f"--pwfile={home}/password"],
        stderr=subprocess.PIPE, text=True, **run)
    if made.returncode != 0:
        raise SystemExit(f"initdb failed: {made.stderr}")
    options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": 200}
    settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    with open(home / "server.log", "wb") as log:
        process = subprocess.Popen([place / "postgres", "-D", home / "data", "-p", str(port), *settings], stderr=log, **run)
    try:
        wait(process, port, home)
        yield f"postgres://bob:{password}@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
        shutil.rmtree(home, ignore_errors=True)


def wait(process, port, home):
    """Until the server takes connections."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise SystemExit(f"PostgreSQL did not start: {(home / 'server.log').read_text()}")

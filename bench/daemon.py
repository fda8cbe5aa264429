"""A daemon that serves one file from a folder of its own, for the scripts beside this one."""

import contextlib
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Iterator


@contextlib.contextmanager
def serving(binary: str, name: str, source: str) -> Iterator[tuple[int, str]]:
    """Its process id, and the address of its HTTP."""
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, name).write_text(source)
        ready = pathlib.Path(folder, "ready")
        daemon = subprocess.Popen(
            [pathlib.Path(binary).resolve(), "up", folder, "--http", "127.0.0.1:0", "--ready-file", ready],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while not (ready.exists() and ready.read_text().strip()):
                if daemon.poll() is not None:
                    raise SystemExit(f"the daemon ended at once: try `{binary} up` on a folder with a file")
                time.sleep(0.01)
            yield daemon.pid, ready.read_text().split()[0].removeprefix("http://")
        finally:
            daemon.terminate()
            daemon.wait()

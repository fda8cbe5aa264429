"""Real daemons and debugging processes, and what they say. Nothing sleeps: every wait is for a line of output, with a deadline."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Optional

from fake_node import SOURCE

PATIENCE = float(os.environ.get("PATIENCE", 60))  # seconds; making the Python environment for the first time takes a download


class Program:
    """A process, and the lines that it and its children write."""

    def __init__(self, arguments: list[str], cwd: Path, **variables: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BOURSE_")}
        # What is cached may stay cached: only the daemon's sockets go into the test's own folder.
        environment = {**inherited, "PYTHONPATH": SOURCE, "TMPDIR": str(cwd), "PYTHONUNBUFFERED": "1"}
        environment.pop("XDG_RUNTIME_DIR", None)
        for name in ("BOURSE_BINARY", "BOURSE_ENVIRONMENTS"):
            if name in os.environ:
                environment[name] = os.environ[name]
        self.process = subprocess.Popen(
            arguments,
            cwd=cwd,
            env={**environment, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        )
        self.pid = self.process.pid
        self.said: list[str] = []
        self.lines: queue.Queue[Optional[str]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def expect(self, pattern: str) -> re.Match[str]:
        """The next line that matches."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                line = self.lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                raise AssertionError(f"no line has {pattern!r}:\n{''.join(self.said)}")
            self.said.append(line)
            found = re.search(pattern, line)
            if found:
                return found

    def expect_end(self) -> int:
        """Until it has ended, and whatever else holds its output. The exit code."""
        while True:
            line = self.lines.get(timeout=PATIENCE)
            if line is None:
                return self.process.wait(PATIENCE)
            self.said.append(line)

    def type(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Folder:
    """A served folder, and the programs that a test starts for it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.served = place / "f"
        self.served.mkdir()
        self.programs: list[Program] = []
        self.http = ""

    def write(self, name: str, source: str) -> Path:
        path = self.served / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_text(textwrap.dedent(source))
        return fresh.replace(path)

    def start(self, *arguments: str) -> Program:
        program = Program(list(arguments), self.place)
        self.programs.append(program)
        return program

    def up(self) -> Program:
        """An ordinary daemon."""
        program = self.start(os.environ["BOURSE_BINARY"], "up", "f", "--http", "127.0.0.1:0")
        self.http = program.expect(r"ready: .* on (http://\S+)")[1]
        return program

    def run(self, *flags: str) -> Program:
        """A daemon whose modules run in one process, which is the one that is returned."""
        program = self.start(sys.executable, "-m", "bourse", "run", "f", "--", "--http", "127.0.0.1:0", *flags)
        program.expect("runs? in this process")
        self.http = program.expect(r"ready: .* on (http://\S+)")[1]
        return program

    def attach(self, name: str) -> Program:
        program = self.start(sys.executable, "-m", "bourse", "attach", f"f/{name}")
        program.expect("Ctrl-C ends it")
        return program

    def call(self, function: str, **arguments: Any) -> Any:
        return self.request("POST", f"/v1/call/{function}", arguments)[1]

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.http + path, data, {"content-type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def later(self, function: str, **arguments: Any) -> queue.Queue[Any]:
        """The same from another thread: where the answer will be."""
        answer: queue.Queue[Any] = queue.Queue()
        threading.Thread(target=lambda: answer.put(self.call(function, **arguments)), daemon=True).start()
        return answer

    def close(self) -> None:
        for program in reversed(self.programs):
            program.end()

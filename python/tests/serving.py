"""A server process of a test's own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SCENE = REPOSITORY / "docs/scene.png"
CAPTION = "The blue triangle is on the left. The large heart is red. There is a triangle."
ENGINE_ITEMS = "sleuth_engine_items_total"
PREFIXES = "sleuth_prefixes_computed_total"
BINARY = Path(os.environ.get("SLEUTH", REPOSITORY / "target/release/sleuth"))


def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Waits until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


class Server:
    """Ended with the test. With a port of an earlier one it comes back in its place."""

    def __init__(
        self,
        *arguments: str,
        listen: str = "127.0.0.1:0",
        scheme: str = "http",
        command: str = "serve",
    ) -> None:
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        line = [str(BINARY), command, "--listen", listen, "--admin-listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            [*line, *arguments], stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        self.address = self._said("listening on ")
        self.admin = self._said("admin on ")
        assert self._said("") == "ready", self.logged()
        self.url = f"{scheme}://{self.address}"
        # Its self test has computed some at the start.
        self.before = {name: self.metric(name) for name in (ENGINE_ITEMS, PREFIXES)}

    def _said(self, what: str) -> str:
        line = self.process.stdout.readline().strip()
        assert line.startswith(what), f"{line!r}\n{self.logged()}"
        return line.removeprefix(what)

    def logged(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=10) as reply:
            lines = reply.read().decode().splitlines()
        total = 0.0
        for line in lines:
            match = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if match and all(f'{k}="{v}"' in (match[1] or "") for k, v in labels.items()):
                total += float(match[2])
        return total

    def computed(self) -> float:
        """Items that the engine computed for callers."""
        return self.metric(ENGINE_ITEMS, end="scored") - self.before[ENGINE_ITEMS]

    def prefixes(self) -> float:
        """Prefixes that were computed for callers."""
        return self.metric(PREFIXES) - self.before[PREFIXES]

    def kill(self) -> None:
        self.process.kill()
        self.stop()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()

"""What callers do meanwhile: `sleuth bench` with its accounts, and new connections that are opened all the time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from pathlib import Path

# The client's half of the first bytes of HTTP/2: the preface and empty SETTINGS.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
BROKEN = ("not_sent", "lost", "unanswered", "twice_answered", "mixed_groups", "changed_answers", "zeros", "not_finite")


class Load:
    """`sleuth bench` until it is told to stop."""

    def __init__(self, binary: Path, port: int, rate: float, connections: int, retries: int, seed: int, more: list[str]) -> None:
        self.command = [str(binary), "bench", "--target", f"http://127.0.0.1:{port}", "--format", "json", "--seconds", "900", "--warm-up", "0", "--attempts", "6"]
        self.command += ["--rate", str(rate), "--group", "4", "--images", "8", "--seed", str(seed)]
        self.command += ["--connections", str(connections), "--retries", str(retries), *more]

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(*self.command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)

    async def stop(self) -> dict:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGINT)
        out, said = await self.process.communicate()
        if not out.startswith(b"{"):
            raise SystemExit(f"sleuth bench ended without a report: {said.decode()[-600:]}")
        return json.loads(out)


class Callers:
    """New connections through a Service, one after another; what came of them."""

    def __init__(self, port: int, pause: float = 0.05) -> None:
        self.port = port
        self.pause = pause
        self.served = 0
        self.refused = 0

    async def run(self) -> None:
        while True:
            if await self.greeted():
                self.served += 1
            else:
                self.refused += 1
            await asyncio.sleep(self.pause)

    async def greeted(self) -> bool:
        """Whether a server answers the first bytes of HTTP/2."""
        try:
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(PREFACE)
                answer = await reader.read(9)
                writer.close()
                return len(answer) > 3 and answer[3] == 4
        except (OSError, TimeoutError):
            return False


def broken(report: dict) -> dict[str, int]:
    """What the checker holds against the server, by name; items that got no rewards in the end too."""
    counts = report["counts"]
    found = {name: counts[name] for name in BROKEN if counts[name]}
    if counts["valid"] < counts["sent"]:
        found["items_without_rewards"] = counts["sent"] - counts["valid"]
    return found

"""What the Python client costs: items per second and CPU per item.

    python benches/client.py --sleuth target/release/sleuth

The server is `sleuth serve --simulated-device`, which computes nothing and whose rewards mean
nothing, so that client and wire are what is measured; client and server share the machine. Items
are one image and prompt and responses of some 70 words, in turns over the ways to send them;
`--rounds` of each, and the medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import sleuth

SCENE = Path(__file__).resolve().parents[2] / "docs/scene.png"
WORDS = ("The large heart is red and a blue triangle is on the left. " * 6).strip()


def items(count: int, first: int) -> list[sleuth.Item]:
    """Items that differ."""
    image = sleuth.Image.of(SCENE)
    return [sleuth.Item(image, f"{first + n} {WORDS}") for n in range(count)]


def one_by_one(client: sleuth.Client, work: list[sleuth.Item]) -> None:
    """Each waits for the one before."""
    for item in work:
        assert client.score(item.image, item.response).valid


def streamed(client: sleuth.Client, work: list[sleuth.Item]) -> None:
    """Many at once."""
    assert all(verdict.valid for verdict in client.score_many(work))


def asynchronous(client: sleuth.Client, work: list[sleuth.Item]) -> None:
    """Many at once, from asyncio."""

    async def run() -> None:
        other = sleuth.aio.Client(client._session.address.url)
        assert all([verdict.valid async for verdict in other.score_many(work)])
        await other.close()

    asyncio.run(run())


def appended(client: sleuth.Client, work: list[sleuth.Item]) -> None:
    """Each in eight pieces."""
    for item in work:
        text = str(item.response)
        with client.open(item.image) as opened:
            for at in range(0, len(text), 50):
                opened.append(text[at : at + 50])
            assert opened.close().valid


WAYS: dict[str, tuple[Callable[[sleuth.Client, list[sleuth.Item]], None], int]] = {
    "score, one by one": (one_by_one, 300),
    "score_many": (streamed, 3000),
    "aio.score_many": (asynchronous, 3000),
    "open, eight appends": (appended, 150),
}


def main() -> None:
    """Measures and prints one JSON object."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--sleuth", default=None)
    arguments.add_argument("--rounds", type=int, default=5)
    chosen = arguments.parse_args()
    device = ("--simulated-device", "1000000000,0.0001", "--max-wait", "1000")
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    cpu: dict[str, list[float]] = {name: [] for name in WAYS}
    with sleuth.local(*device, binary=chosen.sleuth) as client:
        streamed(client, items(500, 0))
        for turn in range(chosen.rounds):
            for name, (way, count) in WAYS.items():
                work = items(count, (turn + 1) * 1_000_000)
                began, used = time.perf_counter(), time.process_time()
                way(client, work)
                seconds[name].append((time.perf_counter() - began) / count)
                cpu[name].append((time.process_time() - used) / count)
    told = {
        name: {
            "items_per_second": round(1 / statistics.median(seconds[name]), 1),
            "microseconds": round(1e6 * statistics.median(seconds[name]), 1),
            "client_cpu_microseconds": round(1e6 * statistics.median(cpu[name]), 1),
        }
        for name in WAYS
    }
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()

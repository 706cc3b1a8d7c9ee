"""Bytes on the wire for one step: images by their hash against images inside of every item.

    python benches/wire.py --sleuth target/release/sleuth

A real server scores 64 groups of 8; a proxy between it and the client counts what passes in both
directions, HTTP/2 and gRPC included. Both ways send the same items, with the policy's tokens. Needs
the packages of requirements-trl.txt.
"""

from __future__ import annotations

import argparse
import io
import itertools
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from rollouts import REPOSITORY, Rollout, steps

import sleuth
from sleuth.item import encode
from sleuth.v1 import reward_service_pb2 as rpb

PHOTOGRAPHS = {"448 x 448 PNG": (448, 448, "PNG"), "1024 x 768 JPEG": (1024, 768, "JPEG")}


Way = Callable[[sleuth.Client, list[sleuth.Item]], list[float]]


class Proxy:
    """Passes TCP connections on, and counts."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.up = self.down = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            caller, _ = self._listener.accept()
            server = socket.create_connection(self._server)
            for way in ((caller, server, "up"), (server, caller, "down")):
                threading.Thread(target=self._pass, args=way, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, direction: str) -> None:
        try:
            while data := source.recv(1 << 16):
                # Each direction has one thread of one connection at a time.
                setattr(self, direction, getattr(self, direction) + len(data))
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return  # The other side is gone, and its end is passed on by the other thread.


def items(tokens: object, rollouts: Iterable[Rollout]) -> list[sleuth.Item]:
    """The step as a trainer sends it."""
    return [
        sleuth.Item(
            r.image,
            prompt=r.prompt,
            policy=sleuth.PolicyTokens.from_ids(tokens, r.ids),
            group=r.group,
        )
        for r in rollouts
    ]


def inline(client: sleuth.Client, step: list[sleuth.Item]) -> list[float]:
    """Every item with its image's file: what the client would send if it knew no hashes."""

    def messages() -> Iterable[rpb.ScoreTokensRequest]:
        for n, item in enumerate(step):
            encoded = encode(item)
            message = rpb.ScoreTokensRequest()
            message.score.context.CopyFrom(encoded.context)
            message.score.context.key.item_id = str(n)
            message.score.context.image.data = encoded.image.data or b""
            message.score.response = encoded.response
            if encoded.policy is not None:
                message.score.policy.CopyFrom(encoded.policy)
            yield message

    rewards = {}
    for reply in client._session.stub.ScoreTokens(messages()):
        if reply.HasField("verdict"):
            assert reply.verdict.HasField("valid"), reply.verdict
            rewards[int(reply.verdict.key.item_id)] = reply.verdict.valid.reward
    return [rewards[n] for n in range(len(step))]


def by_hash(client: sleuth.Client, step: list[sleuth.Item]) -> list[float]:
    """As the client does: each image put once, items name it; none where they are known."""
    return [verdict.reward for verdict in client.score_batch(step)]


def photograph(width: int, height: int, kind: str, seed: int) -> bytes:
    """Noise with the spectrum of photographs, 1/f, in colours that hang together."""
    chance = np.random.default_rng(seed)
    y, x = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :]
    falling = 1 / np.maximum(np.hypot(x, y), 1 / max(width, height))
    planes = [
        np.fft.ifft2(np.fft.fft2(chance.standard_normal((height, width))) * falling).real
        for _ in range(4)
    ]
    grey, *colours = [plane / plane.std() for plane in planes]
    pixels = np.stack([128 + 45 * grey + 6 * colour for colour in colours], axis=-1)
    file = io.BytesIO()
    image = Pillow.fromarray(pixels.clip(0, 255).astype(np.uint8))
    image.save(file, kind, quality=90)
    return file.getvalue()


def with_photographs(step: list[sleuth.Item], size: int, kind: str) -> list[sleuth.Item]:
    """The same step about other images, one for each group."""
    width, height, encoding = PHOTOGRAPHS[kind]
    files = {
        n: sleuth.Image.of(photograph(width, height, encoding, n)) for n in range(len(step) // size)
    }
    return [
        sleuth.Item(files[n // size], item.response, item.prompt, item.policy, item.group)
        for n, item in enumerate(step)
    ]


def count(
    step: list[sleuth.Item], chosen: argparse.Namespace, ways: list[Way]
) -> tuple[list[tuple[int, int]], list[list[float]]]:
    """Bytes up and down, and rewards, of each way, one after the other to a fresh server."""
    server = sleuth.LocalServer(chosen.sleuth, ["--max-wait", "600"])
    proxy = Proxy(server.url.removeprefix("http://"))
    counted, rewards = [(0, 0)], []
    with sleuth.Client(proxy.url) as client:
        for way in ways:
            rewards.append(way(client, step))
            counted.append((proxy.up, proxy.down))
    server.stop()
    return [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(counted)], rewards


def rows(name: str, step: list[sleuth.Item], chosen: argparse.Namespace) -> str:
    """Lines of the table."""
    files = {item.image for item in step if isinstance(item.image, sleuth.Image)}
    size = sum(len(file.data or b"") for file in files) / len(files)
    counted, rewards = count(step, chosen, [inline])
    more, others = count(step, chosen, [by_hash, by_hash])
    counted += more
    assert all(other == rewards[0] for other in others), "the ways differ in their rewards"
    told = []
    for label, (up, down) in zip(
        ("in each item", "by hash", "by hash, again"), counted, strict=True
    ):
        cells = [f"{up / 1e6:.2f}", f"{down / 1e6:.2f}", f"{up / len(step):,.0f}"]
        cells += [f"{down / len(step):,.0f}", f"{counted[0][0] / up:.1f}"]
        told.append(f"| {name}, {size / 1e3:.0f} KB | {label} | {' | '.join(cells)} |")
    return "\n".join(told)


def main() -> None:
    """Counts, and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sleuth", type=Path, default=REPOSITORY / "target/release/sleuth")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--responses", type=int, default=8)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        tokens, rounds = steps(chosen.sleuth, Path(scratch), 1, chosen.images, chosen.responses)
        step = items(tokens, rounds[0])
    lengths = [len(item.policy.text) for item in step if item.policy is not None]
    mean = sum(lengths) / len(lengths)
    print(f"{chosen.images} images x {chosen.responses} responses of {mean:.0f} bytes on average\n")
    print("| images | sent | MB up | MB down | bytes up an item | down an item | times fewer up |")
    print("|---|---|---:|---:|---:|---:|---:|")
    print(rows("`sleuth scenes`", step, chosen), flush=True)
    for kind in PHOTOGRAPHS:
        other = with_photographs(step, chosen.responses, kind)
        print(rows(kind, other, chosen), flush=True)


if __name__ == "__main__":
    main()

"""What the service costs beside the engine: CPU time of a server's threads under an open-loop load.

    cargo build --release
    python benches/service_cost.py target/release/sleuth

Every group of 8 brings an image of its own, so tokenising, putting and decoding of images count as service.
Device threads are told from the others by their names; the client's process is not counted. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

PROMPT = "Is this caption true? Look at the image."
TICKS = os.sysconf("SC_CLK_TCK")
DEVICE = ("sleuth-device", "sleuth-team")


def cpu_seconds(pid: int) -> tuple[float, float, dict[str, float]]:
    """Of device threads, of the others, and of each name."""
    by_name: dict[str, float] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        name = (task / "comm").read_text().strip()
        fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
        by_name[name] = by_name.get(name, 0.0) + (int(fields[11]) + int(fields[12])) / TICKS
    device = sum(t for name, t in by_name.items() if name.startswith(DEVICE))
    return device, sum(by_name.values()) - device, by_name


def ready(server: subprocess.Popen[str]) -> str:
    address = ""
    assert server.stdout is not None
    for line in server.stdout:
        if line.startswith("listening on "):
            address = line.removeprefix("listening on ").strip()
        if line.strip() == "ready":
            return address
    raise SystemExit("the server ended before it was ready")


def load(sleuth: str, target: str, rate: int, seconds: int, words: int, seed: int) -> list[str]:
    images = rate * seconds // 8 + 1
    command = [sleuth, "bench", "--target", target, "--rate", str(rate), "--group", "8", "--words", str(words)]
    command += ["--prompt", PROMPT, "--seconds", str(seconds), "--warm-up", "0", "--images", str(images)]
    return [*command, "--seed", str(seed), "--format", "json"]


def measure(sleuth: str, rate: int, seconds: int, words: int, warm_up: int) -> dict[str, object]:
    command = [sleuth, "serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-filter", "warn"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            target = "http://" + ready(server)
            run = lambda seconds, seed: json.loads(subprocess.run(  # noqa: E731
                load(sleuth, target, rate, seconds, words, seed), check=True, capture_output=True, text=True
            ).stdout)
            run(warm_up, 2)
            device, others, names = cpu_seconds(server.pid)
            start = time.monotonic()
            report = run(seconds, 1)
            wall = time.monotonic() - start
            device_after, others_after, names_after = cpu_seconds(server.pid)
        finally:
            server.terminate()
    if "--verbose" in sys.argv:
        for name, after in sorted(names_after.items()):
            print(f"  {name:20} {after - names.get(name, 0.0):8.2f} s", file=sys.stderr)
    return {"rate": rate, "wall": wall, "device": device_after - device, "others": others_after - others, "report": report}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sleuth")
    parser.add_argument("--rates", type=int, nargs="+", default=[100, 200, 300])
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--warm-up", type=int, default=60, help="seconds under the same load before, in which caches and stores grow")
    parser.add_argument("--words", type=int, default=23)
    parser.add_argument("--verbose", action="store_true", help="CPU time by thread name")
    arguments = parser.parse_args()
    print("| offered/s | answered/s | engine, µs per item | service, µs per item | service/engine |")
    print("|---:|---:|---:|---:|---:|")
    for rate in arguments.rates:
        got = measure(arguments.sleuth, rate, arguments.seconds, arguments.words, arguments.warm_up)
        report = got["report"]
        items = report["counts"]["valid"]
        device, others = float(got["device"]), float(got["others"])
        print(
            f"| {rate} | {items / float(got['wall']):.0f} | {device / items * 1e6:.0f} | {others / items * 1e6:.0f} "
            f"| {others / device:.1%} |"
        )


if __name__ == "__main__":
    main()

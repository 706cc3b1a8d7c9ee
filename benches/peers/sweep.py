#!/usr/bin/env python3
"""Times `sleuth bench` alone over group size, prompt length, response length and threads, and plots it.

    python benches/peers/sweep.py                        # docs/performance.csv, docs/performance.svg
    python benches/peers/sweep.py --threads 1 2          # also over threads, where `sleuth bench` has --threads

One image, 24 prompt tokens, 8 responses of 64 tokens, unless swept. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from environments import DEFAULT_FOLDER, HERE, enter

REPOSITORY = HERE.parent.parent
SWEEPS = {
    "responses": [1, 2, 4, 8, 16, 32, 64],
    "prompt": [8, 16, 32, 64, 128, 256, 512],
    "tokens": [8, 16, 32, 64, 128, 256],
}
AXES = {
    "responses": "responses per group",
    "prompt": "prompt tokens",
    "tokens": "tokens per response",
    "threads": "threads",
}


@dataclass(frozen=True)
class Shape:
    responses: int = 8
    prompt: int = 24
    tokens: int = 64
    threads: int | None = None  # as many as `sleuth bench` takes


@dataclass(frozen=True, kw_only=True)
class Point(Shape):
    sweep: str
    median_seconds: float
    min_seconds: float
    gflop_per_second: float
    peak_mib: float


def shapes(threads: list[int]) -> list[tuple[str, Shape]]:
    sweeps = SWEEPS | ({"threads": threads} if threads else {})
    return [(name, replace(Shape(), **{name: value})) for name, values in sweeps.items() for value in values]


def time_sleuth(args: argparse.Namespace, folder: Path, sweep: str, shape: Shape) -> Point:
    """The first pass is dropped."""
    from workload import random_inputs, write_inputs

    file = folder / "inputs.safetensors"
    write_inputs(file, random_inputs(1, shape.responses, shape.prompt, shape.tokens))
    command = [args.sleuth, "bench", "--model", folder / "model", "--inputs", file, "--format", "json"]
    command += ["--repeat", str(args.repeat + 1)]
    command += ["--threads", str(shape.threads)] if shape.threads else []
    report = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    times = report["seconds"][1:]
    return Point(
        sweep=sweep,
        **asdict(shape),
        median_seconds=median(times),
        min_seconds=min(times),
        gflop_per_second=report["gflops"] / median(times),
        peak_mib=report["peak_bytes"] / 2**20,
    )


def measure(args: argparse.Namespace) -> list[Point]:
    from workload import random_model, write_model

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_model(folder / "model", *random_model())
        return [time_sleuth(args, folder, sweep, shape) for sweep, shape in shapes(args.threads)]


def write_csv(file: Path, points: list[Point]) -> None:
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, asdict(points[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(point) for point in points)


def plot(file: Path, points: list[Point]) -> None:
    from matplotlib import pyplot

    pyplot.rcParams["svg.hashsalt"] = "sleuth"
    figure, panels = pyplot.subplots(1, len(AXES), figsize=(14, 3.2), layout="constrained", sharey=True)
    for panel, (sweep, label) in zip(panels, AXES.items(), strict=True):
        swept = [point for point in points if point.sweep == sweep]
        if not swept:
            panel.set_axis_off()
            continue
        values = [getattr(point, sweep) for point in swept]
        panel.plot(values, [1000 * p.median_seconds / p.responses for p in swept], "o-", label="ms per response")
        panel.plot(values, [p.gflop_per_second for p in swept], "s--", label="GFLOP/s")
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xticks(values, [str(value) for value in values])
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter("{x:g}")
        panel.set_xlabel(label)
        panel.grid(alpha=0.3)
    panels[0].legend()
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def table(points: list[Point]) -> str:
    lines = ["| responses | prompt | tokens | threads | ms | ms per response | GFLOP/s | peak MiB |", "|--:" * 8 + "|"]
    lines += [
        f"| {p.responses} | {p.prompt} | {p.tokens} | {p.threads or 'all'} | {1000 * p.median_seconds:.1f} "
        f"| {1000 * p.median_seconds / p.responses:.1f} | {p.gflop_per_second:.0f} | {p.peak_mib:.0f} |"
        for p in points
    ]
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sleuth", default=REPOSITORY / "target/release/sleuth", type=Path, help="the binary")
    parser.add_argument("--repeat", type=int, default=5, help="timed passes of every shape")
    parser.add_argument("--threads", type=int, nargs="*", default=[], help="sweep over these counts of threads too")
    parser.add_argument("--csv", default=REPOSITORY / "docs/performance.csv", type=Path, help="where the numbers go")
    parser.add_argument("--plot", default=REPOSITORY / "docs/performance.svg", type=Path, help="an SVG or PNG file")
    parser.add_argument("--venvs", type=Path, default=DEFAULT_FOLDER, help="where torch is installed")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    enter("torch", args.venvs)
    points = measure(args)
    write_csv(args.csv, points)
    plot(args.plot, points)
    print(table(points))


if __name__ == "__main__":
    main()

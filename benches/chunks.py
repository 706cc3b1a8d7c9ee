#!/usr/bin/env python3
"""What a token costs when responses are appended in chunks, by `sleuth bench --chunk`.

    python benches/chunks.py MODEL INPUTS [--sleuth target/release/sleuth] [--repeat 3]

MODEL and INPUTS as `sleuth bench` takes them; prefixes are computed before the clock starts. Once with all
responses of INPUTS appending together, once with its first response alone. Checks that every chunk size
gives the bits of the whole, and prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from safetensors.numpy import load_file, save_file

CHUNKS = (1, 2, 4, 8, 16, 32, 64)


def bench(args: argparse.Namespace, inputs: Path, chunk: int | None, dump: Path) -> tuple[float, np.ndarray]:
    command = [args.sleuth, "bench", "--model", args.model, "--inputs", inputs, "--repeat", args.repeat]
    command += ["--dump", dump, "--format", "json"]
    if chunk is not None:
        command += ["--chunk", chunk]
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, check=True)
    return median(json.loads(done.stdout)["seconds"]), load_file(dump)["logits"]


def table(args: argparse.Namespace, scratch: Path) -> list[str]:
    together = load_file(args.inputs)
    first = {"pixel_values": slice(1), "prompt_ids": slice(1), "response_ids": (slice(1), slice(1))}
    alone = {name: np.ascontiguousarray(together[name][part]) for name, part in first.items()}
    cases = {"together": together, "alone": alone}
    rows: dict[int, list[str]] = {chunk: [str(chunk)] for chunk in CHUNKS}
    heads = ["tokens per append"]
    for name, tensors in cases.items():
        file = scratch / f"{name}.safetensors"
        save_file(tensors, file)
        groups, responses, tokens = tensors["response_ids"].shape
        _, whole = bench(args, file, None, scratch / "whole.safetensors")
        heads.append(f"{groups * responses} item(s): µs per token")
        for chunk in CHUNKS:
            seconds, logits = bench(args, file, chunk, scratch / "chunked.safetensors")
            if logits.tobytes() != whole.tobytes():
                raise SystemExit(f"appends of {chunk} tokens gave other bits than the whole")
            rows[chunk].append(f"{1e6 * seconds / (groups * responses * tokens):.0f}")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("inputs", type=Path)
    parser.add_argument("--sleuth", type=Path, default=Path("target/release/sleuth"))
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        print("\n".join(table(args, Path(scratch))))


if __name__ == "__main__":
    main()

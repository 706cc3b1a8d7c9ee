#!/usr/bin/env python3
"""Times `sleuth bench` against transformers on groups, with a random Llama 3.2 Vision of 67 million parameters.

    python3.12 benches/mllama.py      # ten rounds in turns; exit 1 below the floor or on other logits

4 images of 4 tiles, 8 responses of 64 tokens each behind a prompt in the chat template. Every round has new
images and responses, and each side does one pass over them, in turns. transformers 4.54.1 is installed into
benches/peers/.venvs on the first run; it does no more than a reward needs: no language head, inference mode, a
group at a time, and whichever of its attention kernels is faster here. Needs a quiet machine: OpenMP collapses
when it shares its cores, which `--threads 1` avoids.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "benches/peers"))

from environments import DEFAULT_FOLDER, enter  # noqa: E402

FLOOR, TOLERANCE = 4.0, 2e-4


@dataclass
class Side:
    """What one contestant gave."""

    label: str
    note: str = ""
    seconds: list[float] = field(default_factory=list)
    logit_difference: float = 0.0  # the largest, to transformers with its own prefix


class Sleuth:
    """`sleuth bench`, started for every pass: its seconds exclude loading and a pass before the timed one."""

    def __init__(self, args: argparse.Namespace, scratch: Path):
        self.dump, self.report = scratch / "logits.safetensors", {}
        command = [args.sleuth, "bench", "--model", scratch / "model", "--inputs", scratch / "inputs.safetensors"]
        command += ["--repeat", "1", "--threads", str(args.threads), "--dump", self.dump, "--format", "json"]
        self.command = [*command, *args.sleuth_arg]

    def run(self):  # noqa: ANN201 (torch is not there yet when this file is read)
        from safetensors.torch import load_file

        done = subprocess.run(self.command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"`sleuth bench` ended with {done.returncode}")
        self.report = json.loads(done.stdout)
        return self.report["seconds"][0], load_file(self.dump)["logits"]


def faster(model, score: Callable, inputs) -> tuple[str, Callable]:
    """The faster attention, and a function that scores with it."""
    from worker import fastest

    def run(attention: str, given=inputs):
        model.set_attn_implementation(attention)
        return score(given)

    best = fastest(["eager", "sdpa"], run)
    return best, lambda given: run(best, given)


def measure(args: argparse.Namespace, scratch: Path) -> tuple[dict[str, Side], dict]:
    import torch
    from by_gemm import contestant as gemm
    from mllama_workload import own_prefix, prompt_ids, random_inputs, random_model, shared_prefix, write_inputs
    from mllama_workload import write_model

    load_before = os.getloadavg()
    torch.set_num_threads(args.threads)
    model, head = random_model()
    write_model(scratch / "model", model, head)
    prompt = prompt_ids(scratch / "model")
    inputs = random_inputs(prompt, args.groups, seed=args.rounds)
    write_inputs(scratch / "inputs.safetensors", inputs)
    sleuth, product = Sleuth(args, scratch), gemm("onednn", scratch, args.threads)

    sides = {
        "sleuth": Side("sleuth"),
        "own": Side("transformers, prefix per response"),
        "shared": Side("transformers, prefix shared by hand"),
        "gemm": Side("f32 GEMM, torch (oneDNN)", product.note),
    }
    sides["own"].note, own = faster(model, partial(own_prefix, model, head), inputs)
    sides["shared"].note, shared = faster(model, partial(shared_prefix, model, head), inputs)

    def timed(run: Callable):
        start = time.perf_counter()
        logits = run(inputs)
        return time.perf_counter() - start, logits

    runs = {
        "sleuth": sleuth.run,
        "own": lambda: timed(own),
        "shared": lambda: timed(shared),
        "gemm": lambda: (product.run(), None),
    }
    runs["gemm"]()
    for turn in range(args.rounds):
        inputs = random_inputs(prompt, args.groups, seed=turn)
        write_inputs(scratch / "inputs.safetensors", inputs)
        answers = {}
        for name in list(runs)[:: -1 if turn % 2 else 1]:
            time.sleep(args.rest)
            answers[name] = runs[name]()
            sides[name].seconds.append(answers[name][0])
        for name in ("sleuth", "shared"):
            apart = (answers[name][1] - answers["own"][1]).abs().max().item()
            # The larger of the two, and what is not a number stays.
            sides[name].logit_difference = max(sides[name].logit_difference, apart, key=lambda x: (x != x, x))
        print(f"round {turn + 1} of {args.rounds}", file=sys.stderr)
    sides["sleuth"].note = f"peak {sleuth.report['peak_bytes'] / 2**20:.0f} MiB"
    parameters = sum(p.numel() for p in [*model.parameters(), *head.parameters()])
    run = {"parameters": parameters, "gflop": sleuth.report["gflops"], "prompt_tokens": len(prompt)}
    return sides, run | {"threads": args.threads, "load_before": load_before, "load_after": os.getloadavg()}


def ratios(sides: dict[str, Side], name: str) -> list[float]:
    """A side's seconds by sleuth's, round by round."""
    return [theirs / ours for theirs, ours in zip(sides[name].seconds, sides["sleuth"].seconds, strict=True)]


def rate(sides: dict[str, Side], name: str, gflop: float) -> float:
    """GFLOP/s of the median pass."""
    from by_gemm import SIZE

    return (2 * SIZE**3 / 1e9 if name == "gemm" else gflop) / median(sides[name].seconds)


def table(sides: dict[str, Side], gflop: float) -> str:
    lines = [f"{'':36}{'median s':>10}{'min s':>9}{'max s':>9}{'GFLOP/s':>9}{'sleuth is':>11}{'logits':>10}  note"]
    for name, side in sides.items():
        times = "".join(f"{t:9.3f}" for t in (median(side.seconds), min(side.seconds), max(side.seconds)))
        ratio = f"{median(ratios(sides, name)):.2f} x" if name in ("own", "shared") else "-"
        apart = f"{side.logit_difference:.1e}" if name in ("sleuth", "shared") else "-"
        speed = rate(sides, name, gflop)
        lines.append(f"{side.label:36} {times}{speed:9.0f}{ratio:>11}{apart:>10}  {side.note}")
    return "\n".join(lines)


def verdict(sides: dict[str, Side]) -> list[str]:
    times, wrong = median(ratios(sides, "own")), []
    if times < FLOOR:
        wrong.append(f"FAIL  {times:.2f} times transformers with its own prefix, below {FLOOR}")
    for name in ("sleuth", "shared"):
        if not sides[name].logit_difference <= TOLERANCE:  # also where it is not a number
            wrong.append(f"FAIL  logits of {sides[name].label} differ by {sides[name].logit_difference:.1e}")
    return wrong


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sleuth", default=REPOSITORY / "target/release/sleuth", type=Path, help="the binary")
    parser.add_argument("--sleuth-arg", action="append", default=[], help="one more argument for `sleuth bench`")
    parser.add_argument("--rounds", type=int, default=10, help="passes of every side, in turns")
    parser.add_argument("--groups", type=int, default=4, help="images of a pass, with 8 responses each")
    parser.add_argument("--rest", type=float, default=0.5, help="seconds between turns, for idle threads to settle")
    parser.add_argument("--threads", type=int, default=2, help="threads of every side")
    parser.add_argument("--venvs", type=Path, default=DEFAULT_FOLDER, help="where transformers is installed")
    parser.add_argument("--json", type=Path, help="also write everything here")
    parser.add_argument("--keep", type=Path, help="an absent folder for the model and the inputs, kept afterwards")
    args = parser.parse_args()
    if not os.access(args.sleuth, os.X_OK):
        parser.error(f"{args.sleuth} is no executable; build it, or give --sleuth")
    return args


def main() -> int:
    args = arguments()
    enter("mllama", args.venvs)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])  # and so of all sides
    if args.keep:
        args.keep.mkdir(parents=True)
        sides, run = measure(args, args.keep)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            sides, run = measure(args, Path(scratch))
    wrong = verdict(sides)
    print(table(sides, run["gflop"]), *wrong, sep="\n")
    print(
        f"{run['parameters'] / 1e6:.1f} M parameters, {run['gflop']:.1f} GFLOP, {run['prompt_tokens']} prompt tokens, "
        f"{args.threads} threads; load {run['load_before'][0]:.1f} before, {run['load_after'][0]:.1f} after"
    )
    each = sorted(ratios(sides, "own"))
    print(f"times transformers with its own prefix, round by round: {each[0]:.2f} to {each[-1]:.2f}")
    if args.json:
        args.json.write_text(json.dumps(run | {name: asdict(side) for name, side in sides.items()}, indent=2) + "\n")
    return min(len(wrong), 1)


if __name__ == "__main__":
    sys.exit(main())

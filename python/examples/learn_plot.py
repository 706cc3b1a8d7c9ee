"""Plots what policies learned, and prints tables.

    python examples/learn_plot.py runs/*.jsonl --svg learned.svg

Takes the logs of `learn.py`, named CREDIT-SEED.jsonl. Needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

# Statements of a kind for which a rate is given.
FEWEST = 100
# What is plotted of evaluations: key, label, factor.
PANELS = (
    ("wrong", "wrong statements, %", 100),
    ("reward", "reward of a response", 1),
    ("statements", "statements per response", 1),
    ("tokens", "tokens per response", 1),
)


def evaluations(path: Path) -> list[dict[str, Any]]:
    """The evaluations of one run."""
    lines = map(json.loads, path.read_text().splitlines())
    return [line for line in lines if line["kind"] == "evaluation"]


def by_credit(paths: Sequence[Path]) -> dict[str, list[list[dict[str, Any]]]]:
    """Runs by what their file is named for."""
    runs: dict[str, list[list[dict[str, Any]]]] = {}
    for path in sorted(paths):
        runs.setdefault(path.stem.rsplit("-", 1)[0], []).append(evaluations(path))
    return runs


def plot(runs: dict[str, list[list[dict[str, Any]]]], svg: Path) -> None:
    """One panel per figure, one thin line per seed."""
    figure, panels = plt.subplots(1, len(PANELS), figsize=(13, 3), layout="constrained")
    for panel, (key, label, factor) in zip(panels, PANELS, strict=True):
        for n, (credit, seeds) in enumerate(runs.items()):
            for m, run in enumerate(seeds):
                steps = [told["step"] for told in run]
                values = [factor * told[key] for told in run]
                name = credit if m == 0 else None
                panel.plot(steps, values, color=f"C{n}", linewidth=1, label=name)
        panel.set_title(label, fontsize=10)
        panel.set_xlabel("step")
        panel.set_ylim(bottom=0 if key != "reward" else None)
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize=8)
    # Without a date equal logs give equal files.
    figure.savefig(svg, metadata={"Date": None})


def row(credit: str, when: str, told: Sequence[dict[str, Any]]) -> str:
    """A line of the table: means over seeds, and every seed's share of wrong statements."""
    each = " / ".join(f"{100 * one['wrong']:.1f}" for one in told)
    keys = ("responses_with_wrong", "unreadable", "statements", "distinct_statements", "tokens")
    some, unreadable, statements, distinct, tokens = (mean(one[k] for one in told) for k in keys)
    reward = mean(one["reward"] for one in told)
    return (
        f"| {credit}, {when} | {each} | {100 * some:.1f} | {100 * unreadable:.1f} | {reward:.3f} | "
        f"{statements:.2f} | {distinct:.2f} | {tokens:.1f} |"
    )


def total(told: Sequence[dict[str, Any]], key: str) -> Counter[str]:
    """Statements by kind of claim, over seeds."""
    return sum((Counter(one[key]) for one in told), Counter())


def claim_row(claim: str, *times: Sequence[dict[str, Any]]) -> str:
    """A line of the table of claims: their share of all, and how many of them are wrong."""
    shares, wrong = [], []
    for told in times:
        said, false = total(told, "claims"), total(told, "wrong_claims")
        shares.append(f"{100 * said[claim] / said.total():.0f}")
        # Of fewer a rate says nothing.
        enough = said[claim] >= FEWEST
        wrong.append(f"{100 * false[claim] / said[claim]:.1f}" if enough else "-")
    return f"| {claim} | {' | '.join([*shares, *wrong])} |"


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("logs", type=Path, nargs="+", metavar="JSONL")
    parser.add_argument("--svg", type=Path)
    arguments = parser.parse_args()
    runs = by_credit(arguments.logs)
    print(
        "| | wrong statements, %, by seed | responses with one, % | unreadable, % | reward | "
        "statements | distinct | tokens |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for credit, seeds in runs.items():
        print(row(credit, "before", [run[0] for run in seeds]))
        print(row(credit, f"step {seeds[0][-1]['step']}", [run[-1] for run in seeds]))
    for credit, seeds in runs.items():
        print(f"\n| {credit} | share before, % | after | wrong before, % | after |")
        print("|---|---:|---:|---:|---:|")
        before, after = ([run[at] for run in seeds] for at in (0, -1))
        for claim in total(before, "claims"):
            print(claim_row(claim, before, after))
    if arguments.svg is not None:
        plot(runs, arguments.svg)


if __name__ == "__main__":
    main()

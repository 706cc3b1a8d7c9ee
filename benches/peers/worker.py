"""One contestant in a process of its own: `python worker.py MODULE VARIANT FOLDER THREADS`, driven by run.py.

Says on stdout that it is ready, after loading and one warm-up pass; then a line on stdin is one timed
pass, answered by its seconds and logits. All of them are lines of JSON; what libraries print goes to stderr.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path


@dataclass
class Contestant:
    """`run` gives the logits [G,R,S] as a flat list, or seconds where it times itself; `reset` is not timed."""

    run: Callable[[], list[float] | float]
    packages: list[str]
    note: str = ""
    reset: Callable[[], None] = field(default=lambda: None)


def timed(contestant: Contestant) -> dict:
    contestant.reset()
    start = time.perf_counter()
    result = contestant.run()
    seconds = time.perf_counter() - start
    if isinstance(result, float):
        return {"seconds": result, "logits": None}
    return {"seconds": seconds, "logits": result}


def fastest[T](choices: list[T], run: Callable[[T], object]) -> T:
    """The choice with the shortest of two passes; a hopeless one gets one only."""
    best: dict[int, float] = {}
    for i, choice in enumerate(choices):
        for attempt in range(2):
            start = time.perf_counter()
            run(choice)
            seconds = time.perf_counter() - start
            best[i] = min(seconds, best.get(i, seconds))
            if attempt == 0 and seconds > 1.5 * min(best.values()):
                break
    return choices[min(best, key=best.__getitem__)]


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    module, variant, folder, threads = sys.argv[1:]
    contestant = importlib.import_module(module).contestant(variant, Path(folder), int(threads))
    timed(contestant)
    versions = {name: version(name) for name in contestant.packages}
    print(json.dumps({"note": contestant.note, "versions": versions}), file=answers, flush=True)
    for _ in sys.stdin:
        print(json.dumps(timed(contestant)), file=answers, flush=True)


if __name__ == "__main__":
    main()

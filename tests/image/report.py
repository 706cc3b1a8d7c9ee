"""Counts what held, what did not and what was not tried."""

from __future__ import annotations


class Report:
    def __init__(self) -> None:
        self.held = 0
        self.failed: list[str] = []
        self.untried: list[str] = []

    def check(self, what: str, holds: object, seen: object = "") -> None:
        if holds:
            self.held += 1
            print(f"  ok      {what}", flush=True)
        else:
            self.failed.append(what)
            print(f"  FAILED  {what}: {seen}", flush=True)

    def not_tried(self, what: str) -> None:
        self.untried.append(what)

    def part(self, name: str) -> None:
        print(name, flush=True)

    def end(self) -> int:
        for what in self.untried:
            print(f"not tried: {what}")
        for what in self.failed:
            print(f"failed: {what}")
        print(f"{self.held} held, {len(self.failed)} failed, {len(self.untried)} not tried")
        return 1 if self.failed else 0

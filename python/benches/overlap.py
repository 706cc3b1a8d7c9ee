"""Scoring while a policy generates against scoring after it: the same step, in turns in one run.

    python benches/overlap.py --sleuth target/release/sleuth
    python benches/overlap.py --sleuth target/release/sleuth --model random --policy here

Each side has a server of its own, idle while the other's works, so that no image is in a cache
already; each round has other images, and the sides take turns in going first. A step is from the
first generated token to the last reward, its tail from the last generated token on. All rewards,
of responses and of tokens, must be equal to the bit.

`--policy elsewhere` gives tokens by the clock, as a policy on other hardware; `--policy here` runs
a policy in torch on the server's cores. Needs the packages of requirements-trl.txt.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rollouts import REPOSITORY, Elsewhere, OnTheseCores, Policy, Rollout, steps

import sleuth
from sleuth.server import LocalClient

MINI = REPOSITORY / "models/mini"


@dataclass(frozen=True)
class Step:
    """What one side made of one step, in seconds from the first generated token.

    `client` and `server` are the processes' CPU time.
    """

    generated: float
    ended: float
    verdicts: list[sleuth.Verdict]
    client: float = 0.0
    server: float = 0.0

    @property
    def tail(self) -> float:
        """From the last generated token to the last reward."""
        return self.ended - self.generated


def after(client: sleuth.Client, tokens: Any, policy: Policy, rollouts: list[Rollout]) -> Step:
    """Whole responses, in one call, when all of them are there."""
    times = list(policy.tokens(rollouts))
    items = [
        sleuth.Item(
            r.image,
            prompt=r.prompt,
            policy=sleuth.PolicyTokens.from_ids(tokens, r.ids),
            group=r.group,
        )
        for r in rollouts
    ]
    verdicts = client.score_batch(items)
    return Step(times[-1] - times[0], time.perf_counter() - times[0], verdicts)


class Growing:
    """One response on its way to the server."""

    def __init__(self, client: sleuth.Client, tokens: Any, rollout: Rollout) -> None:
        self._ids = rollout.ids
        self._stream = sleuth.PolicyStream(tokens)
        self._item = client.open(rollout.image, rollout.prompt, of_policy=True, group=rollout.group)

    def generated(self, begin: int, end: int, pool: ThreadPoolExecutor) -> Future[Any] | None:
        """Appends what was generated; behind the last token, the verdict to come."""
        self._append(self._stream.feed(self._ids[begin:end]))
        if end < len(self._ids):
            return None
        self._append(self._stream.finish())
        return pool.submit(self._item.close)

    def _append(self, part: sleuth.PolicyTokens) -> None:
        if len(part):
            self._item.append(part.text, part)


def meanwhile(
    every: int, client: sleuth.Client, tokens: Any, policy: Policy, rollouts: list[Rollout]
) -> Step:
    """Opened at the first token, appended every so many, closed where a response ends."""
    verdicts: list[Future[Any] | None] = [None] * len(rollouts)
    growing: list[Growing] = []
    times = []
    # A thread waits for each verdict, as `close` does.
    with ThreadPoolExecutor(len(rollouts)) as pool:
        for n, when in enumerate(policy.tokens(rollouts)):
            times.append(when)
            growing = growing or [Growing(client, tokens, r) for r in rollouts]
            begin = n // every * every
            for at, (response, rollout) in enumerate(zip(growing, rollouts, strict=True)):
                last = n + 1 == len(rollout.ids)
                if last or (n + 1 - begin == every and n < len(rollout.ids)):
                    verdicts[at] = response.generated(begin, n + 1, pool)
        told = [future.result() for future in verdicts if future is not None]
        ended = time.perf_counter()
    return Step(times[-1] - times[0], ended - times[0], told)


def check_same(whole: list[sleuth.Verdict], parts: list[sleuth.Verdict]) -> None:
    """Rewards of responses and tokens are equal to the bit."""
    assert len(whole) == len(parts)
    for a, b in zip(whole, parts, strict=True):
        assert a.valid, a
        assert b.valid, b
        assert np.float32(a.reward).tobytes() == np.float32(b.reward).tobytes(), (a, b)
        assert a.tokens.reward.tobytes() == b.tokens.reward.tobytes(), (a, b)
        assert a.tokens.end.tolist() == b.tokens.end.tolist()


Side = Callable[[sleuth.Client, Any, Policy, list[Rollout]], Step]


def server_cpu(client: LocalClient) -> float:
    """User and system time of a client's server so far."""
    stat = Path(f"/proc/{client.server.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def timed(
    side: Side, client: LocalClient, tokens: Any, policy: Policy, rollouts: list[Rollout]
) -> Step:
    """One step, with what it took of the processors."""
    own, others = time.process_time(), server_cpu(client)
    step = side(client, tokens, policy, rollouts)
    own, others = time.process_time() - own, server_cpu(client) - others
    return replace(step, client=own, server=others)


def measure(
    chosen: argparse.Namespace, clients: list[LocalClient], folder: Path
) -> list[list[Step]]:
    """The steps of both sides, the first round, which warms up, left out."""
    tokens, rounds = steps(
        chosen.sleuth, folder, chosen.rounds + 1, chosen.images, chosen.responses
    )
    policy: Policy = Elsewhere(chosen.tokens_per_second)
    if chosen.policy == "here":
        policy = OnTheseCores(tokens, chosen.hidden, chosen.layers, chosen.threads)
    sides: list[Side] = [after, lambda *a: meanwhile(chosen.append_every, *a)]
    taken: list[list[Step]] = [[], []]
    for turn, rollouts in enumerate(rounds):
        for side in (0, 1) if turn % 2 else (1, 0):
            taken[side].append(timed(sides[side], clients[side], tokens, policy, rollouts))
            time.sleep(0.2)
        check_same(taken[0][-1].verdicts, taken[1][-1].verdicts)
    return [side[1:] for side in taken]


COLUMNS = {
    "generation": "generated",
    "step": "ended",
    "tail": "tail",
    "CPU of the client": "client",
    "CPU of the server": "server",
}


def told(taken: list[list[Step]], chosen: argparse.Namespace, load: float) -> str:
    """A table of medians, in milliseconds."""
    lengths = [len(v.tokens) for step in taken[0] for v in step.verdicts]
    size = f"{chosen.images} images x {chosen.responses} responses"
    length = f"{median(lengths):.0f} tokens, {max(lengths)} at most"
    lines = [
        f"{size} of {length}; {chosen.rounds} rounds, load {load:.1f} before",
        f"{len(lengths)} rewards and those of their {sum(lengths)} tokens are equal to the bit",
        "",
        f"| ms | {' | '.join(COLUMNS)} |",
        f"|---|{'---:|' * len(COLUMNS)}",
    ]
    medians = [[median(getattr(s, k) for s in side) for k in COLUMNS.values()] for side in taken]
    for name, row in zip(("after", "while"), medians, strict=True):
        lines.append(f"| {name} | {' | '.join(f'{1e3 * value:.0f}' for value in row)} |")
    ratios = [f"{a / b:.2f}" for a, b in zip(*medians, strict=True)]
    return "\n".join([*lines, f"| after/while | {' | '.join(ratios)} |"])


def arguments() -> argparse.Namespace:
    """What is to be measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sleuth", type=Path, default=REPOSITORY / "target/release/sleuth")
    parser.add_argument("--model", choices=["mini", "random"], default="mini")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--responses", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--append-every", type=int, default=8, help="tokens in an append")
    parser.add_argument("--policy", choices=["elsewhere", "here"], default="elsewhere")
    parser.add_argument("--tokens-per-second", type=float, default=30.0, help="of each response")
    parser.add_argument("--hidden", type=int, default=256, help="of the policy here")
    parser.add_argument("--layers", type=int, default=4, help="of the policy here")
    parser.add_argument("--threads", type=int, default=1, help="of the policy here")
    return parser.parse_args()


def main() -> None:
    """Measures, and prints a table."""
    chosen = arguments()
    load = os.getloadavg()[0]
    settings = sleuth.Settings(max_in_flight=chosen.images * chosen.responses)
    with tempfile.TemporaryDirectory() as scratch:
        folder, model = Path(scratch), MINI
        if chosen.model == "random":
            from random_model import write_model

            model = folder / "model"
            print(f"{write_model(MINI, model) / 1e6:.0f} M random parameters")
        serve = ("--model", str(model), "--max-wait", "60")
        with (
            closing(sleuth.local(*serve, binary=chosen.sleuth, settings=settings)) as whole,
            closing(sleuth.local(*serve, binary=chosen.sleuth, settings=settings)) as parts,
        ):
            print(told(measure(chosen, [whole, parts], folder / "scenes"), chosen, load))


if __name__ == "__main__":
    main()

"""Scoring while a policy generates against scoring after it: the same step, in turns in one run.

    python benches/overlap.py --sleuth target/release/sleuth
    python benches/overlap.py --sleuth target/release/sleuth --model random --policy here

Each side has a server of its own, idle while the other's works, so that no image is in a cache
already; each round has other images, and the sides take turns in going first. A step is from the
first generated token to the last reward, its tail from the last generated token on. All rewards,
of responses and of tokens, must be equal to the bit.

`--policy elsewhere` gives tokens by the clock, as a policy on other hardware; `--policy here` runs
a policy in torch on the server's cores. `--model simulated` is a reward model on other hardware: it
takes time and no CPU, and its rewards mean nothing. Needs the packages of requirements-trl.txt.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rollouts import REPOSITORY, Elsewhere, OnTheseCores, Policy, Rollout, steps

import sleuth
import sleuth.aio
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


async def generating(policy: Policy, rollouts: list[Rollout]) -> AsyncIterator[float]:
    """When each token was there; the next one is generated while this one is dealt with."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as thread:
        tokens = policy.tokens(rollouts)
        coming = loop.run_in_executor(thread, next, tokens, None)
        while (when := await coming) is not None:
            coming = loop.run_in_executor(thread, next, tokens, None)
            yield when


class Growing:
    """One response on its way to the server."""

    def __init__(self, client: sleuth.aio.Client, tokens: Any, rollout: Rollout) -> None:
        self._ids = rollout.ids
        self._stream = sleuth.PolicyStream(tokens)
        self._item = client.open(rollout.image, rollout.prompt, of_policy=True, group=rollout.group)

    async def append(self, begin: int, end: int) -> None:
        """Sends what was generated."""
        part = self._stream.feed(self._ids[begin:end])
        if len(part):
            await self._item.append(part.text, part)

    async def close(self, begin: int) -> sleuth.Verdict:
        """Sends the rest, and waits for the verdict."""
        await self.append(begin, len(self._ids))
        part = self._stream.finish()
        await self._item.append(part.text, part)
        return await self._item.close()


async def meanwhile(
    every: int, client: sleuth.aio.Client, tokens: Any, policy: Policy, rollouts: list[Rollout]
) -> Step:
    """Opened at the first token, appended every so many, closed where a response ends."""
    verdicts: list[asyncio.Task[sleuth.Verdict]] = []
    order: list[int] = []
    growing: list[Growing] = []
    times = []
    async for when in generating(policy, rollouts):
        growing = growing or [Growing(client, tokens, rollout) for rollout in rollouts]
        times.append(when)
        begin, end = (len(times) - 1) // every * every, len(times)
        appends = []
        for n, (response, rollout) in enumerate(zip(growing, rollouts, strict=True)):
            if end == len(rollout.ids):
                verdicts.append(asyncio.create_task(response.close(begin)))
                order.append(n)
            elif end == begin + every and end < len(rollout.ids):
                appends.append(response.append(begin, end))
        await asyncio.gather(*appends)
    told = dict(zip(order, await asyncio.gather(*verdicts), strict=True))
    ended = time.perf_counter() - times[0]
    return Step(times[-1] - times[0], ended, [told[n] for n in range(len(rollouts))])


def check_same(whole: list[sleuth.Verdict], parts: list[sleuth.Verdict]) -> None:
    """Rewards of responses and tokens are equal to the bit."""
    assert len(whole) == len(parts)
    for a, b in zip(whole, parts, strict=True):
        assert a.valid, a
        assert b.valid, b
        assert np.float32(a.reward).tobytes() == np.float32(b.reward).tobytes(), (a, b)
        assert a.tokens.reward.tobytes() == b.tokens.reward.tobytes(), (a, b)
        assert a.tokens.end.tolist() == b.tokens.end.tolist()


def server_cpu(client: LocalClient) -> float:
    """User and system time of a client's server so far."""
    stat = Path(f"/proc/{client.server.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def timed(step: Callable[[], Step], client: LocalClient) -> Step:
    """One step, with what it took of the processors."""
    own, others = time.process_time(), server_cpu(client)
    made = step()
    own, others = time.process_time() - own, server_cpu(client) - others
    return replace(made, client=own, server=others)


def measure(
    chosen: argparse.Namespace, whole: LocalClient, parts: LocalClient, folder: Path
) -> list[list[Step]]:
    """The steps of both sides, the first round, which warms up, left out."""
    tokens, rounds = steps(
        chosen.sleuth, folder, chosen.rounds + 1, chosen.images, chosen.responses
    )
    policy: Policy = Elsewhere(chosen.tokens_per_second)
    if chosen.policy == "here":
        policy = OnTheseCores(tokens, chosen.hidden, chosen.layers, chosen.threads)
    other = sleuth.aio.Client(parts.server.url, settings=chosen.settings)
    every = chosen.append_every
    taken: list[list[Step]] = [[], []]
    for turn, rollouts in enumerate(rounds):
        sides = [
            (lambda r=rollouts: after(whole, tokens, policy, r), whole),
            (lambda r=rollouts: asyncio.run(meanwhile(every, other, tokens, policy, r)), parts),
        ]
        for n in (0, 1) if turn % 2 else (1, 0):
            taken[n].append(timed(*sides[n]))
            time.sleep(0.2)
        check_same(taken[0][-1].verdicts, taken[1][-1].verdicts)
    asyncio.run(other.close())
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
    parser.add_argument("--model", choices=["mini", "random", "simulated"], default="mini")
    parser.add_argument("--device", default="66000,0.01", help="tokens a second, seconds a batch")
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
    # No response may wait for its turn while it is generated.
    chosen.settings = sleuth.Settings(max_in_flight=chosen.images * chosen.responses)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        serve = ["--max-wait", "60"]
        if chosen.model == "random":
            from random_model import write_model

            print(f"{write_model(MINI, folder / 'model') / 1e6:.0f} M random parameters")
            serve += ["--model", str(folder / "model")]
        elif chosen.model == "simulated":
            serve += ["--simulated-device", chosen.device]
        with (
            closing(sleuth.local(*serve, binary=chosen.sleuth, settings=chosen.settings)) as whole,
            closing(sleuth.local(*serve, binary=chosen.sleuth)) as parts,
        ):
            print(told(measure(chosen, whole, parts, folder / "scenes"), chosen, load))


if __name__ == "__main__":
    main()

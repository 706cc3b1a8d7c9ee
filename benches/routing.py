"""What a router costs and what it keeps: a client, two routers and four replicas as processes.

    cargo build --release
    python benches/routing.py target/release/sleuth                # about 4 minutes; rows for docs/routing.md
    python benches/routing.py target/release/sleuth --simulated    # policies on simulated replicas, 15 seconds

Figures of each row come from one run: medians of alternating rounds for what the router adds, so that whatever else the
machine does falls on both sides.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import subprocess
import urllib.request
from collections.abc import Iterator

# Tokens a second, and seconds a batch: a device that takes time and no CPU.
DEVICE = ["--simulated-device", "1000000,0.001"]
SMALL = ["--simulated-device", "6000,0.002", "--max-wait", "0.5", "--burst", "0"]


class Process:
    """A replica or a router, ready."""

    def __init__(self, sleuth: str, command: str, *options: str) -> None:
        arguments = [sleuth, command, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", *options]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        said = iter(self.process.stdout)
        self.url = "http://" + next(said).removeprefix("listening on ").strip()
        self.admin = "http://" + next(said).removeprefix("admin on ").strip()
        if next(said, "").strip() != "ready":
            raise SystemExit(f"{' '.join(arguments)} ended before it was ready")

    def page(self) -> dict:
        with urllib.request.urlopen(self.admin + "/replicas") as answer:
            return json.load(answer)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@contextlib.contextmanager
def fleet(sleuth: str, *options: str, replicas: int = 4, routers: int = 2) -> Iterator[tuple[list[Process], list[Process]]]:
    started: list[Process] = []
    try:
        behind = [Process(sleuth, "serve", *options) for _ in range(replicas)]
        started += behind
        urls = ",".join(replica.url for replica in behind)
        before = [Process(sleuth, "route", "--replicas", urls) for _ in range(routers)]
        started += before
        yield behind, before
    finally:
        for process in reversed(started):
            process.stop()


# Another one for each load: with the same one keys come again, and verdicts are replayed.
SEEDS = itertools.count(1)


def bench(sleuth: str, targets: list[Process], *options: str) -> subprocess.Popen[str]:
    urls = ",".join(target.url for target in targets)
    command = [sleuth, "bench", "--target", urls, "--format", "json", "--seed", str(next(SEEDS)), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def report(load: subprocess.Popen[str]) -> dict:
    out, err = load.communicate()
    if not out:
        raise SystemExit(err)
    seen = json.loads(out)
    counts = seen["counts"]
    wrong = {k: counts[k] for k in ("lost", "unanswered", "twice_answered", "zeros", "mixed_groups", "changed_answers")}
    if any(wrong.values()):
        raise SystemExit(f"promises broken: {wrong}")
    return seen


def direct(sleuth: str, replicas: list[Process], rate: float, *options: str) -> list[dict]:
    """Each replica by a client of its own, with its share of the groups: what a router cannot do better than."""
    share = str(rate / len(replicas))
    loads = [bench(sleuth, [replica], "--rate", share, *options) for replica in replicas]
    return [report(load) for load in loads]


def added(sleuth: str, rounds: int) -> str:
    """Well below half load: 200 items a second on four devices that can do a thousand each."""
    load = ["--group", "8", "--seconds", "8", "--warm-up", "2", "--words", "19"]
    alone, routed = [], []
    with fleet(sleuth, *DEVICE) as (replicas, routers):
        for _ in range(rounds):
            alone.append(statistics.mean(seen["admitted"]["p50_ms"] for seen in direct(sleuth, replicas, 200, *load)))
            routed.append(report(bench(sleuth, routers, "--rate", "200", *load))["admitted"]["p50_ms"])
    by = statistics.median(b - a for a, b in zip(alone, routed, strict=True))
    return f"median {statistics.median(alone):.2f} ms at the replicas, {statistics.median(routed):.2f} through the routers: {by:+.2f} ms"


def throughput(sleuth: str, rounds: int) -> str:
    """Twice what four devices can do: what came of it a second, the rest refused."""
    load = ["--group", "8", "--seconds", "10", "--warm-up", "3", "--words", "19"]
    alone, routed = [], []
    with fleet(sleuth, *SMALL) as (replicas, routers):
        for _ in range(rounds):
            alone.append(sum(seen["achieved_per_second"] for seen in direct(sleuth, replicas, 800, *load)))
            routed.append(report(bench(sleuth, routers, "--rate", "800", *load))["achieved_per_second"])
    share = statistics.median(b / a for a, b in zip(alone, routed, strict=True))
    return f"{statistics.median(alone):.0f} items/s at the replicas, {statistics.median(routed):.0f} through the routers: {share:.1%}"


def step(sleuth: str) -> str:
    """A training step of 64 groups of 8 with the trained model."""
    load = ["--step-groups", "64", "--step-every", "60", "--seconds", "20", "--warm-up", "0", "--group", "8", "--words", "19", "--images", "64"]
    with fleet(sleuth, "--threads", "1", "--burst", "600", "--max-wait", "600", routers=1) as (_, (router,)):
        # So that all know what work costs.
        report(bench(sleuth, [router], "--rate", "40", "--seconds", "5", "--warm-up", "0", "--words", "19"))
        before = router.page()
        seen = report(bench(sleuth, [router], *load))
        page = router.page()
    placed = {reason: count - before["placed"][reason] for reason, count in page["placed"].items()}
    first = placed["rendezvous"] + placed["spilled"] + placed["split"] + placed["failover"]
    computed = page["prefixes_computed"] - before["prefixes_computed"]
    pairs = zip(before["replicas"], page["replicas"], strict=True)
    costs = [after["placed_seconds"] - earlier["placed_seconds"] for earlier, after in pairs]
    mean = statistics.mean(costs)
    return (
        f"{seen['counts']['valid']} items; {computed} prefixes computed, {first} placements that ask for one "
        f"({placed['split']} splits, {placed['failover']} failovers); predicted cost of a replica "
        f"{min(costs) / mean:.1%} to {max(costs) / mean:.1%} of the mean"
    )


def simulated(sleuth: str, plot: str | None) -> None:
    """Policies on simulated replicas, a row for each workload."""
    command = [sleuth, "bench", "--simulate", "--format", "json", *(["--simulation-plot", plot] if plot else [])]
    seen = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    batch, position, token, image = seen["cost"]
    print(f"\n{batch * 1e3:.2f} ms a batch, {position * 1e6:.1f} µs a prefix position, {token * 1e6:.1f} µs a token, {image * 1e3:.2f} ms an image\n")
    print("| workload | Sleuth | worst seed | prefixes | busiest/mean | best peer | | round robin | cache-aware |\n|---|---:|---:|---:|---:|---|---:|---:|---:|")
    for workload, group in itertools.groupby(seen["rows"], key=lambda row: row["workload"]):
        rows = list(group)
        open_loop = rows[0]["open_loop"]

        def figure(row: dict, open_loop: bool = open_loop) -> float:
            return row["p99_ms"] if open_loop else row["over_bound"]

        def shown(row: dict, open_loop: bool = open_loop) -> str:
            return f"{row['p99_ms']:.0f} ms" if open_loop else f"{row['over_bound']:.3f}"

        *peers, ours = rows
        best = min(peers, key=figure)
        aware = min((row for row in peers if row["policy"].startswith("cache-aware")), key=figure)
        mark = "**" if figure(ours) > figure(best) or (not open_loop and ours["over_bound"] > 1.05) else ""
        worst = "" if open_loop else f"{ours['worst_over_bound']:.3f}"
        print(
            f"| {workload}{' (p99)' if open_loop else ''} | {mark}{shown(ours)}{mark} | {worst} | {ours['prefixes_computed']:.0f}/{ours['prefixes']:.0f} "
            f"| {ours['imbalance']:.3f} | {best['policy']} | {shown(best)} | {shown(rows[0])} | {shown(aware)} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sleuth")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--simulated", action="store_true", help="the simulator's table instead")
    parser.add_argument("--plot", help="with --simulated: write its plot here")
    arguments = parser.parse_args()
    if arguments.simulated:
        simulated(arguments.sleuth, arguments.plot)
        return
    print("| what | seen |\n|---|---|", flush=True)
    print(f"| latency that a router adds, half load | {added(arguments.sleuth, arguments.rounds)} |", flush=True)
    print(f"| throughput, overload | {throughput(arguments.sleuth, arguments.rounds)} |", flush=True)
    print(f"| a step of 64 × 8, trained model | {step(arguments.sleuth)} |", flush=True)


if __name__ == "__main__":
    main()

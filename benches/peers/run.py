#!/usr/bin/env python3
"""Times sleuth against what else can score tokens with PaliGemma on a CPU, all in one run and in turns.

    python benches/peers/run.py                          # ten rounds, exit 1 below a floor or on other logits
    python benches/peers/run.py --rounds 2 --only sleuth own shared

The peers are installed into benches/peers/.venvs on the first run. One workload: 4 images, 8 responses of
64 tokens each, a random PaliGemma of 61 million f32 parameters. Every contestant lives in its own process,
loaded and warm; in each round each one does one pass while the others idle. Needs a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import select
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from environments import DEFAULT_FOLDER, HERE, environment
from report import GEMM_GFLOP, Row, difference, table, verdict

REPOSITORY = HERE.parent.parent
START_LIMIT, PASS_LIMIT, SETTLE_LIMIT = 900.0, 300.0, 10.0  # seconds
THREADS_OF = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Peer:
    label: str
    module: str
    variant: str
    environment: str = "torch"
    agrees: bool = True


PEERS = {
    "own": Peer("transformers, prefix per response", "by_transformers", "own"),
    "shared": Peer("transformers, prefix shared by hand", "by_transformers", "shared"),
    "packed": Peer("plain torch, packed", "by_packed", "torch"),
    "openvino": Peer("OpenVINO, packed", "by_packed", "openvino"),
    "vllm": Peer("vLLM CPU, token_classify", "by_vllm", "", "vllm", agrees=False),
    "gemm-torch": Peer("f32 GEMM, torch (MKL)", "by_gemm", "torch"),
    "gemm-numpy": Peer("f32 GEMM, numpy (OpenBLAS)", "by_gemm", "numpy"),
    "gemm-onednn": Peer("f32 GEMM, torch (oneDNN)", "by_gemm", "onednn"),
    "gemm-openvino": Peer("f32 GEMM, OpenVINO", "by_gemm", "openvino"),
}


class Failed(Exception):
    """Why a contestant gives no times."""


class Process:
    """A contestant of worker.py in its own process and session."""

    def __init__(self, name: str, scratch: Path, args: argparse.Namespace):
        peer, self.log = PEERS[name], scratch / f"{name}.log"
        python = environment(peer.environment, args.venvs)
        command = [python, HERE / "worker.py", peer.module, peer.variant, scratch, str(args.threads)]
        threads = {variable: str(args.threads) for variable in THREADS_OF}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            env=os.environ | threads | for_vllm(python.parent.parent),
            start_new_session=True,
            text=True,
        )
        ready = self.answer(START_LIMIT)
        self.note, self.versions = ready["note"], ready["versions"]

    def answer(self, limit: float) -> dict:
        if not select.select([self.process.stdout], [], [], limit)[0]:
            raise Failed(f"no answer in {limit:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            errors = [text for text in self.log.read_text().splitlines() if "Error" in text]
            raise Failed(errors[0][-160:] if errors else f"ended with {self.process.wait()}")
        return json.loads(line)

    def run(self) -> dict:
        self.process.stdin.write("pass\n")
        self.process.stdin.flush()
        return self.answer(PASS_LIMIT)

    def cpu_seconds(self) -> float:
        """Of all processes of the session."""
        ticks = 0
        for file in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = file.read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            if int(fields[3]) == self.process.pid:
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


def for_vllm(home: Path) -> dict[str, str]:
    """What its documentation asks for, where the environment has it."""
    omp = home / "lib/libiomp5.so"
    return {"LD_PRELOAD": str(omp), "VLLM_CACHE_ROOT": str(home / "cache")} if omp.exists() else {}


class Sleuth:
    """`sleuth bench`, started for every pass: its seconds exclude loading."""

    def __init__(self, scratch: Path, args: argparse.Namespace):
        self.dump = scratch / "sleuth.safetensors"
        self.command = [args.sleuth, "bench", "--model", scratch / "model", "--inputs", scratch / "inputs.safetensors"]
        self.command += ["--repeat", "1", "--dump", self.dump, "--format", "json", *args.sleuth_arg]
        done = subprocess.run([args.sleuth, "--version"], stdout=subprocess.PIPE, text=True, check=True)
        self.versions = {"sleuth": done.stdout.strip()}
        report = self.run()
        self.note, self.gflop = f"peak {report['peak_bytes'] / 2**20:.0f} MiB", report["gflops"]

    def run(self) -> dict:
        done = subprocess.run(self.command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"`sleuth bench` ended with {done.returncode}: {' '.join(done.stderr.split())[:160]}")
        report = json.loads(done.stdout)
        return report | {"seconds": report["seconds"][0], "logits": only_tensor(self.dump)}

    def cpu_seconds(self) -> float:
        return 0.0

    def close(self) -> None:
        """Nothing of it runs between passes."""


def only_tensor(file: Path) -> list[float]:
    """The f32 values of a safetensors file with one tensor."""
    data = file.read_bytes()
    body = 8 + struct.unpack_from("<Q", data)[0]
    return list(struct.unpack_from(f"<{(len(data) - body) // 4}f", data, body))


def write_workload(scratch: Path, args: argparse.Namespace) -> dict:
    python = environment("torch", args.venvs)
    done = subprocess.run([python, HERE / "workload.py", scratch], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def start(name: str, gflop: float, scratch: Path, args: argparse.Namespace) -> tuple[Row, Process | Sleuth | None]:
    row = Row(PEERS[name].label if name in PEERS else name, GEMM_GFLOP if name.startswith("gemm") else gflop)
    print(f"starting {row.label}", file=sys.stderr)
    try:
        contestant = Process(name, scratch, args) if name in PEERS else Sleuth(scratch, args)
    except (Failed, OSError, subprocess.CalledProcessError) as e:
        row.failure = str(e)
        return row, None
    row.note, row.versions = contestant.note, contestant.versions
    if isinstance(contestant, Sleuth) and abs(contestant.gflop / gflop - 1) > 1e-3:
        row.failure = f"it counts {contestant.gflop:.1f} GFLOP, not {gflop:.1f}"
    return row, contestant


def settle(contestants: dict[str, Process | Sleuth]) -> None:
    """Waits until none computes: some spin for a second after a pass."""
    deadline = time.monotonic() + SETTLE_LIMIT
    while time.monotonic() < deadline:
        before = sum(c.cpu_seconds() for c in contestants.values())
        time.sleep(0.3)
        if sum(c.cpu_seconds() for c in contestants.values()) - before < 0.015:
            return


def one_pass(name: str, contestants: dict[str, Process | Sleuth], rows: dict[str, Row], workload: dict) -> None:
    """Times one contestant, and watches what the others take meanwhile."""
    row, waiting = rows[name], {other: c for other, c in contestants.items() if other != name}
    before, began = {other: c.cpu_seconds() for other, c in waiting.items()}, time.perf_counter()
    try:
        answer = contestants[name].run()
    except Failed as e:
        row.failure = str(e)
        contestants.pop(name).close()
        return
    took = time.perf_counter() - began
    for other, c in waiting.items():
        share = (c.cpu_seconds() - before[other]) / took
        rows[other].cpu_share_while_waiting = max(share, rows[other].cpu_share_while_waiting)
    row.seconds.append(answer["seconds"])
    if answer["logits"] is not None:
        row.logit_difference = max(row.logit_difference or 0.0, difference(answer["logits"], workload["logits"]))
        row.causal_logit_difference = difference(answer["logits"], workload["causal_logits"])


def measure(args: argparse.Namespace, scratch: Path) -> tuple[dict[str, Row], dict]:
    load_before, workload = os.getloadavg(), write_workload(scratch, args)
    rows: dict[str, Row] = {}
    contestants: dict[str, Process | Sleuth] = {}
    try:
        for name in args.only:
            rows[name], contestant = start(name, workload["gflop"], scratch, args)
            if contestant:
                contestants[name] = contestant
        for turn in range(args.rounds):
            for place in range(len(args.only)):
                name = args.only[(place + turn) % len(args.only)]
                if name in contestants:
                    settle(contestants)
                    one_pass(name, contestants, rows, workload)
            print(f"round {turn + 1} of {args.rounds}", file=sys.stderr)
    finally:
        for contestant in contestants.values():
            contestant.close()
    machine = {"cpu": cpu_name(), "threads": args.threads, "python": platform.python_version()}
    work = {"parameters": workload["parameters"], "gflop": workload["gflop"]}
    return rows, machine | work | {"load_before": load_before, "load_after": os.getloadavg()}


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def arguments() -> argparse.Namespace:
    names = ["sleuth", *PEERS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10, help="passes of every contestant, in turns")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--sleuth", default=REPOSITORY / "target/release/sleuth", type=Path, help="the binary")
    parser.add_argument("--sleuth-arg", action="append", default=[], help="one more argument for `sleuth bench`")
    parser.add_argument("--threads", type=int, default=2, help="threads and cores of every contestant")
    parser.add_argument("--venvs", type=Path, default=DEFAULT_FOLDER, help="where the peers are installed")
    parser.add_argument("--json", type=Path, help="also write everything here")
    args = parser.parse_args()
    if "sleuth" in args.only and not os.access(args.sleuth, os.X_OK):
        parser.error(f"{args.sleuth} is no executable; build it, or give --sleuth")
    return args


def main() -> int:
    args = arguments()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])  # and so of all contestants
    with tempfile.TemporaryDirectory() as scratch:
        rows, run = measure(args, Path(scratch))
    if "vllm" in rows and rows["vllm"].seconds:
        apart = rows["vllm"].causal_logit_difference
        rows["vllm"].note += f"; wrong mask: {apart:.0e} from transformers with a causal one"
    lines, good = verdict(rows, ["sleuth", *(name for name, peer in PEERS.items() if peer.agrees)])
    print(table(rows), *lines, sep="\n")
    busiest = max(row.cpu_share_while_waiting for row in rows.values())
    print(f"{run['cpu']}, {args.threads} threads; load {run['load_before'][0]:.1f} before; "
          f"while waiting, no contestant took more than {100 * busiest:.0f} % of a core")  # fmt: skip
    if run["load_before"][0] > 0.5:
        print("the machine was busy: do not cite these times", file=sys.stderr)
    if args.json:
        contestants = {name: asdict(row) for name, row in rows.items()}
        args.json.write_text(json.dumps(run | {"contestants": contestants, "verdict": lines}, indent=2) + "\n")
    failed = "sleuth" in rows and rows["sleuth"].failure
    return 0 if good and not failed else 1


if __name__ == "__main__":
    sys.exit(main())

"""What a server does when things go wrong: one row per trial, for docs/reliability.md.

    cargo build --release
    python benches/reliability.py target/release/sleuth                    # all but the soak, about 5 minutes
    python benches/reliability.py target/release/sleuth --soak 3600        # an hour at 80 % load

Every trial drives a real server by `sleuth bench --target`, whose checker accounts for every item. Linux only; needs
openssl, and for the clock's jumps libfaketime (Debian: faketime), without which that trial says so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

MINI = Path(__file__).parent / "../models/mini"
SIMULATED = ["--simulated-device", "30000,0.002"]
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


class Server:
    """A server process, ready to serve."""

    def __init__(self, sleuth: str, *options: str, command: str = "serve", stderr: object = subprocess.DEVNULL, **more: object) -> None:
        arguments = [sleuth, command, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", *options]
        self.sleuth = sleuth
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=stderr, text=True, **more)  # type: ignore[call-overload]
        said = iter(self.process.stdout)
        self.address = next(said).removeprefix("listening on ").strip()
        for line in said:
            if line.strip() == "ready":
                return
        raise SystemExit(f"{' '.join(arguments)} ended before it was ready")

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(60)

    def resident(self) -> int:
        """Bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    def load(self, *options: str, scheme: str = "http") -> subprocess.Popen[str]:
        target = f"{scheme}://{self.address.replace('127.0.0.1', 'localhost') if scheme == 'https' else self.address}"
        command = [self.sleuth, "bench", "--target", target, "--format", "json", "--group", "8", *options]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def report(load: subprocess.Popen[str]) -> dict:
    out, err = load.communicate()
    if not out:
        raise SystemExit(err)
    return json.loads(out)


def verdict(seen: dict) -> str:
    counts = seen["counts"]
    wrong = {k: counts[k] for k in ("lost", "unanswered", "twice_answered", "zeros", "mixed_groups", "changed_answers")}
    bad = ", ".join(f"{count} {what}" for what, count in wrong.items() if count)
    return f"{counts['valid']:,} items, {bad or 'none lost, doubled, zero or mixed'}"


def swap(sleuth: str) -> str:
    with tempfile.TemporaryDirectory() as root:
        shutil.copytree(MINI, f"{root}/mini")
        shutil.copytree(MINI, f"{root}/bare", ignore=shutil.ignore_patterns("adapter"))
        with Server(sleuth, "--model", f"{root}/mini", "--model-root", root) as server:
            load = server.load("--rate", "40", "--seconds", "30", "--images", "8")
            swaps = 0
            while load.poll() is None:
                time.sleep(2)
                command = [sleuth, "admin", "--target", f"http://{server.address}", "load-weights"]
                subprocess.run([*command, ("bare", "mini")[swaps % 2]], check=True, capture_output=True)
                swaps += 1
            seen = report(load)
    return f"{verdict(seen)}; {swaps} exchanges of {len(seen['counts']['versions'])} versions"


def leaf(folder: Path, serial: int) -> None:
    run = lambda *command: subprocess.run(["openssl", *command], check=True, capture_output=True, cwd=folder)  # noqa: E731
    run("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "new.key", "-out", "leaf.csr", "-subj", "/CN=localhost")
    (folder / "san").write_text("subjectAltName=DNS:localhost")
    run(*f"x509 -req -in leaf.csr -CA ca.crt -CAkey ca.key -set_serial {serial} -days 2 -extfile san -out new.crt".split())
    for kind in ("key", "crt"):
        (folder / f"new.{kind}").rename(folder / f"tls.{kind}")


def serial(address: str) -> str:
    shown = subprocess.run(["openssl", "s_client", "-connect", address], input="", capture_output=True, text=True).stdout
    return subprocess.run(["openssl", "x509", "-noout", "-serial"], input=shown, capture_output=True, text=True).stdout.strip()


def certificates(sleuth: str) -> str:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ca = "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -subj /CN=ca -days 2"
        subprocess.run(["openssl", *ca.split()], check=True, capture_output=True, cwd=folder)
        leaf(folder, 1)
        with Server(sleuth, *SIMULATED, "--tls-certificate", f"{name}/tls.crt", "--tls-key", f"{name}/tls.key") as server:
            load = server.load("--rate", "100", "--seconds", "20", "--connections", "4", "--ca", f"{name}/ca.crt", scheme="https")
            shown, rotations = {serial(server.address)}, 0
            while load.poll() is None:
                time.sleep(3)
                rotations += 1
                leaf(folder, 1 + rotations)
                server.process.send_signal(signal.SIGHUP)
                time.sleep(1)
                shown.add(serial(server.address))
            seen = report(load)
    return f"{verdict(seen)}; {rotations} rotations, {len(shown)} certificates shown to new connections"


def full_disk(sleuth: str) -> str:
    with open("/dev/full", "w") as full, Server(sleuth, *SIMULATED, "--log-filter", "debug", stderr=full) as server:
        seen = report(server.load("--rate", "200", "--seconds", "10"))
    return f"{verdict(seen)}; every log line failed to be written"


def full_output(sleuth: str) -> str:
    line = json.dumps({"id": "a", "image": str((MINI / "../../docs/scene.png").resolve()), "response": "A red star."})
    command = [sleuth, "score", "--model", str(MINI), "--jsonl", "-"]
    with open("/dev/full", "w") as full:
        lines = "\n".join([line] * 2000)
        ended = subprocess.run(command, input=lines, stdout=full, stderr=subprocess.PIPE, text=True)
    return f"`score --jsonl` ends with code {ended.returncode}: {' '.join(ended.stderr.split())}"


@contextlib.contextmanager
def fake_clock() -> Iterator[tuple[dict[str, str], Path]]:
    """Variables of a process whose wall clock is what a file says; its monotonic clock is the real one."""
    with tempfile.NamedTemporaryFile("w") as now:
        Path(now.name).write_text("+0")
        variables = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": now.name, "FAKETIME_NO_CACHE": "1"}
        yield os.environ | variables | {"DONT_FAKE_MONOTONIC": "1"}, Path(now.name)


def jumps(server: Server, now: Path) -> str:
    load = server.load("--rate", "200", "--seconds", "16")
    for jump in ("+1d", "-1d", "+400d", "-30d", "+0"):
        time.sleep(3)
        now.write_text(jump)
    return f"{verdict(report(load))}; the wall clock jumped five times, by up to 430 days"


NO_FAKETIME = f"not run: {FAKETIME} is not there (Debian package faketime)"


def clock(sleuth: str) -> str:
    if not FAKETIME.exists():
        return NO_FAKETIME
    with fake_clock() as (variables, now), Server(sleuth, *SIMULATED, env=variables) as server:
        return jumps(server, now)


def router_clock(sleuth: str) -> str:
    if not FAKETIME.exists():
        return NO_FAKETIME
    with fake_clock() as (variables, now), Server(sleuth, *SIMULATED) as one, Server(sleuth, *SIMULATED) as two:
        replicas = f"http://{one.address},http://{two.address}"
        with Server(sleuth, "--replicas", replicas, command="route", env=variables) as router:
            return jumps(router, now)


@contextlib.contextmanager
def idle(address: str, connections: int) -> Iterator[int]:
    """Connections that finished an HTTP/2 preface and say nothing more."""
    host, port = address.split(":")
    made = []
    for _ in range(connections):
        with contextlib.suppress(OSError):
            connection = socket.create_connection((host, int(port)), timeout=5)
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            made.append(connection)
    try:
        yield len(made)
    finally:
        for connection in made:
            connection.close()


def descriptors(sleuth: str) -> str:
    limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (96, 96))  # noqa: E731
    with Server(sleuth, *SIMULATED, preexec_fn=limit) as server:
        before = report(server.load("--rate", "100", "--seconds", "3"))
        load = server.load("--rate", "100", "--seconds", "15")
        time.sleep(1)
        with idle(server.address, 300) as made:
            time.sleep(5)
        seen = report(load)
        after = report(server.load("--rate", "100", "--seconds", "3"))
        assert before["passes"] and after["passes"], "served before and after"
    return f"{verdict(seen)}; 96 descriptors, {made} connections beside for 5 s, and new clients served afterwards"


def connections(sleuth: str) -> str:
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    with Server(sleuth, *SIMULATED) as server, idle(server.address, 1000) as made:
        memory = server.resident()
        seen = report(server.load("--rate", "300", "--seconds", "15", "--connections", "200"))
    p99 = seen["admitted"]["p99_ms"]
    return f"{verdict(seen)}; {made} idle and 200 busy connections, p99 {p99:.0f} ms, {memory >> 20} MiB with the idle ones"


def memory(sleuth: str) -> str:
    # Address space that takes the binary, its threads and its caches, and not a gigabyte more.
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))  # noqa: E731
    options = ["--prefix-cache", "64", "--vision-cache", "16", "--image-store", "64"]
    with Server(sleuth, *options, preexec_fn=limit) as server:
        seen = report(server.load("--rate", "60", "--seconds", "20", "--images", "200"))
        resident = server.resident()
    tight = lambda: resource.setrlimit(resource.RLIMIT_AS, (64 << 20, 64 << 20))  # noqa: E731
    command = [sleuth, "serve", "--listen", "127.0.0.1:0", "--admin-listen", "off"]
    refused = subprocess.run(command, preexec_fn=tight, capture_output=True, text=True, timeout=60)
    return f"{verdict(seen)} in 3 GiB of address space ({resident >> 20} MiB resident); in 64 MiB it ends with code {refused.returncode}"


def soak(sleuth: str, seconds: int, settling: int) -> str:
    # 330 items a second are 80 % of this device: see docs/serving.md. The store of verdicts takes half an hour to fill.
    device = ["--simulated-device", "30000,0.02", "--image-store", "64"]
    samples = []
    with Server(sleuth, *device) as server, tempfile.TemporaryFile("w+") as out:
        target = f"http://{server.address}"
        command = [sleuth, "bench", "--target", target, "--format", "json", "--group", "8", "--rate", "330", "--words", "19"]
        # Into a file: nobody reads a pipe meanwhile, and it would fill.
        load = subprocess.Popen([*command, "--seconds", str(settling + seconds), "--warm-up", "4"], stdout=out, text=True)
        begin = time.monotonic()
        while load.poll() is None:
            time.sleep(min(10, max(1, seconds / 60)))
            samples.append((time.monotonic() - begin, server.resident()))
            if "SAMPLES" in os.environ:
                Path(os.environ["SAMPLES"]).write_text("".join(f"{at:.0f},{held}\n" for at, held in samples))
        out.seek(0)
        seen = json.load(out)
    return f"{verdict(seen)} in {settling + seconds} s; p99 {seen['admitted']['p99_ms']:.0f} ms; {steadiness(samples, seconds, settling)}"


def steadiness(samples: list[tuple[float, int]], seconds: int, settling: int) -> str:
    """How resident memory stood once the stores had filled."""
    settled = [(at - settling, held) for at, held in samples if settling <= at <= settling + seconds]
    mean = statistics.mean(held for _, held in settled)
    far = max(abs(held - mean) for _, held in settled) / mean
    tenths = [[held for at, held in settled if n <= 6 * at / seconds < n + 1] for n in range(6)]
    means = [statistics.mean(tenth) / 2**20 for tenth in tenths if tenth]
    return (
        f"resident memory after {settling} s: every sample within {far:.1%} of {mean / 2**20:.0f} MiB, means of sixths of that time "
        f"{min(means):.1f} to {max(means):.1f} MiB"
    )


TRIALS: dict[str, Callable[[str], str]] = {
    "versions exchanged under load": swap,
    "certificates rotated under load": certificates,
    "a full disk under the log": full_disk,
    "a full disk under results": full_output,
    "jumps of the wall clock": clock,
    "jumps of a router's wall clock": router_clock,
    "no file descriptors left": descriptors,
    "1,000 idle and 200 busy connections": connections,
    "a limit on memory": memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sleuth")
    parser.add_argument("--only", nargs="+", choices=TRIALS, default=list(TRIALS))
    parser.add_argument("--soak", type=int, metavar="SECONDS", help="the soak alone, so long")
    parser.add_argument("--settling", type=int, default=2700, help="seconds before the soak, in which stores fill; SAMPLES names a file for the curve")
    arguments = parser.parse_args()
    print("| trial | what came of it |\n|---|---|", flush=True)
    if arguments.soak:
        print(f"| a soak at 80 % load | {soak(arguments.sleuth, arguments.soak, arguments.settling)} |")
        return
    for name in arguments.only:
        print(f"| {name} | {TRIALS[name](arguments.sleuth)} |", flush=True)


if __name__ == "__main__":
    main()

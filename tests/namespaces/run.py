"""Replicas in network namespaces of their own, killed, frozen, slowed and cut off during training steps.

    cargo build --release
    sudo python tests/namespaces/run.py target/release/sleuth      # about 40 seconds

Linux with iproute2 and the right to make namespaces. A client sends steps of groups to a router before four replicas, and its
checker accounts for every item; the exit code is 0 where each has its rewards, once.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator

NAMES = ["sleuth-r0", "sleuth-r1", "sleuth-r2", "sleuth-r3"]
BRIDGE = "sleuth-br"
HOST = "10.77.0.1"
PORT = 50051


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def address(place: int) -> str:
    return f"10.77.0.{10 + place}"


@contextlib.contextmanager
def network() -> Iterator[None]:
    """A bridge, and a namespace with an address on it for each replica."""
    try:
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("addr", "add", f"{HOST}/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        for place, name in enumerate(NAMES):
            ip("netns", "add", name)
            ip("link", "add", f"sleuth-v{place}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", f"sleuth-v{place}", "master", BRIDGE, "up")
            ip("-n", name, "addr", "add", f"{address(place)}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "del", name], check=False)
        subprocess.run(["ip", "link", "del", BRIDGE], check=False)


class Replica:
    """A replica that can be killed and started again."""

    def __init__(self, sleuth: str, place: int) -> None:
        self.place = place
        self.command = ["ip", "netns", "exec", NAMES[place], sleuth, "serve", "--listen", f"{address(place)}:{PORT}"]
        self.command += ["--insecure", "--admin-listen", "off", "--simulated-device", "3000,0.01", "--burst", "600"]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in self.process.stdout:
            if line.strip() == "ready":
                return
        raise SystemExit(f"{' '.join(self.command)} ended before it was ready")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> None:
        self.is_slow = False
        self.process.kill()
        self.process.wait()

    def slow_down(self) -> None:
        """It runs a third of the time, in turns that its connections outlive."""
        self.is_slow = True

        def turns() -> None:
            while self.is_slow:
                self.signal(signal.SIGSTOP)
                time.sleep(0.1)
                self.signal(signal.SIGCONT)
                time.sleep(0.05)

        threading.Thread(target=turns, daemon=True).start()

    def speed_up(self) -> None:
        self.is_slow = False

    def link(self, state: str) -> None:
        ip("link", "set", f"sleuth-v{self.place}", state)


def faults(replicas: list[Replica]) -> list[tuple[float, str, object]]:
    """When, what, and how: a step begins every two seconds, and takes most of one."""
    killed, frozen, slowed, cut = replicas
    return [
        (2.3, "r0 is killed", lambda: killed.signal(signal.SIGKILL)),
        (4.3, "r1 is frozen", lambda: frozen.signal(signal.SIGSTOP)),
        (6.0, "r0 is there again", killed.start),
        (10.0, "r1 goes on", lambda: frozen.signal(signal.SIGCONT)),
        (11.0, "r2 runs a third of the time", slowed.slow_down),
        (14.3, "r3 is cut off", lambda: cut.link("down")),
        (18.0, "r3 is there again", lambda: cut.link("up")),
        (20.0, "r2 runs all the time", slowed.speed_up),
    ]


def started(command: list[str], stack: contextlib.ExitStack) -> tuple[str, str]:
    """Where a router listens, and its admin port; it ends with the stack."""
    router = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    stack.callback(router.wait)
    stack.callback(router.kill)
    said = iter(router.stdout)
    listening = next(said).removeprefix("listening on ").strip()
    admin = next(said).removeprefix("admin on ").strip()
    if next(said, "").strip() != "ready":
        raise SystemExit("the router ended before it was ready")
    return f"http://{listening}", f"http://{admin}"


def main() -> None:
    sleuth = sys.argv[1]
    with network(), contextlib.ExitStack() as stack:
        replicas = [Replica(sleuth, place) for place in range(len(NAMES))]
        for replica in replicas:
            stack.callback(replica.stop)
        urls = ",".join(f"http://{address(place)}:{PORT}" for place in range(len(NAMES)))
        route = [sleuth, "route", "--replicas", urls, "--silence", "1", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
        listening, admin = started(route, stack)
        step = ["--step-groups", "24", "--step-every", "2", "--group", "8", "--seconds", "24", "--warm-up", "0", "--images", "24"]
        load = [sleuth, "bench", "--target", listening, "--format", "json", *step]
        bench = subprocess.Popen(load, stdout=subprocess.PIPE, text=True)
        began = time.monotonic()
        for at, what, act in faults(replicas):
            time.sleep(max(0.0, began + at - time.monotonic()))
            print(f"{at:4.1f} s  {what}", flush=True)
            act()
        counts = json.loads(bench.communicate()[0])["counts"]
        with urllib.request.urlopen(admin + "/replicas") as answer:
            page = json.load(answer)
    wrong = {k: counts[k] for k in ("lost", "unanswered", "twice_answered", "zeros", "mixed_groups", "changed_answers", "refused", "not_sent")}
    bad = ", ".join(f"{count} {what}" for what, count in wrong.items() if count)
    print(f"{counts['valid']:,} of {counts['sent']:,} items valid, {bad or 'none lost, refused, doubled, zero or mixed'}; {page['failovers']} failovers")
    if bad or counts["valid"] != counts["sent"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

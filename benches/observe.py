"""What tracing and metrics cost: CPU time of a server per item, without and with them, in turns.

    cargo build --release
    cargo build --release -p sleuth-telemetry --features test-util --example collector
    python3 benches/observe.py

The device is simulated, so that what is measured is the server. Standard library only.
"""

import argparse
import json
import os
import statistics
import subprocess
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
SILENT, SCRAPE = "--admin-listen=off", "--admin-listen=127.0.0.1:0"


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def started(command: list[str], line: str) -> tuple[subprocess.Popen, str]:
    """Starts a process and waits for the line that ends in its address."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    for said in process.stdout:
        if said.startswith(line):
            return process, said.split()[-1]
    raise SystemExit(f"{command[0]} ended")


def per_item(folder: Path, flags: list[str], arguments: argparse.Namespace) -> float:
    """Microseconds of CPU that a server spends on an item."""
    sleuth = str(folder / "sleuth")
    serve = [sleuth, "serve", "--listen", "127.0.0.1:0", "--simulated-device", "4000000,0.001"]
    server, address = started([*serve, *flags], "listening on ")
    try:
        # It listens before it takes items.
        while server.stdout.readline() not in ("ready\n", ""):
            pass
        load = [sleuth, "bench", "--target", f"http://{address}", "--format", "json"]
        load += ["--rate", str(arguments.rate), "--group", "8", "--warm-up", "0"]
        subprocess.run([*load, "--seconds", "2"], check=True, capture_output=True)
        before = cpu_seconds(server.pid)
        seconds = ["--seconds", str(arguments.seconds)]
        report = subprocess.run([*load, *seconds], check=True, capture_output=True, text=True)
        spent = cpu_seconds(server.pid) - before
    finally:
        server.terminate()
        server.wait()
    return 1e6 * spent / json.loads(report.stdout)["counts"]["attempts"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", type=Path, default=Path("target/release"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=float, default=400.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    example = str(arguments.target / "examples/collector")
    collector, url = started([example, "--quiet"], "http://")
    setups = {
        "neither": [SILENT],
        "metrics": [SCRAPE],
        "metrics, traces at 1 %": [SCRAPE, "--otlp-endpoint", url],
        "metrics, traces at 100 %": [SCRAPE, "--otlp-endpoint", url, "--trace-sample", "1"],
    }
    spent = {name: [] for name in setups}
    try:
        for _ in range(arguments.rounds):
            for name, flags in setups.items():
                spent[name].append(per_item(arguments.target, flags, arguments))
    finally:
        collector.terminate()
    ratios = {
        name: statistics.median(own / off for own, off in zip(values, spent["neither"]))
        for name, values in spent.items()
    }
    print("| | CPU per item, µs | times neither |\n|---|---:|---:|")
    for name, values in spent.items():
        print(f"| {name} | {statistics.median(values):.0f} | {ratios[name]:.2f} |")


if __name__ == "__main__":
    main()

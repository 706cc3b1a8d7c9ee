"""What must hold of the image while it runs: as its user, on a root that cannot be written, without any right, in namespaces."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

ADMIN = "http://127.0.0.1:50052"
RESPONSE = "The blue triangle is on the left. The large heart is red. There is a triangle."


class Box:
    """crun with a bundle made of an image's root and configuration."""

    def __init__(self, work: Path, root: Path, configuration: dict) -> None:
        self.bundle = work / "bundle"
        self.bundle.mkdir(exist_ok=True)
        # crun wants one kind of cgroups; where the machine mounts both it is shown the new ones. It makes none.
        unified = ["unshare", "--mount", "sh", "-c", 'mount -t cgroup2 none /sys/fs/cgroup && exec "$@"', "sh"]
        self.crun = [*unified, "crun", "--root", str(work / "crun"), "--cgroup-manager=disabled"]
        self.configuration = configuration
        self.root = root

    def write(self, arguments: list[str], mounts: list[dict], folder: str | None, variables: list[str]) -> None:
        user = int(self.configuration["User"].split(":")[0])
        kinds = ("pid", "network", "ipc", "uts", "mount")
        options = ["nosuid", "noexec", "nodev"]
        made = [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": options},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
        ]
        specification = {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": user, "gid": user},
                "args": [*self.configuration["Entrypoint"], *arguments],
                "env": [*self.configuration["Env"], *variables],
                "cwd": folder or self.configuration["WorkingDir"],
                "noNewPrivileges": True,
                "capabilities": {kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")},
            },
            "root": {"path": str(self.root), "readonly": True},
            "mounts": made + mounts,
            "linux": {"namespaces": [{"type": kind} for kind in kinds], "maskedPaths": ["/proc/kcore", "/sys"]},
        }
        (self.bundle / "config.json").write_text(json.dumps(specification))

    def run(self, *arguments: str, mounts: list[dict] = (), folder: str | None = None, variables: list[str] = ()) -> subprocess.CompletedProcess:
        """Runs until it ends."""
        self.write(list(arguments), list(mounts), folder, list(variables))
        command = [*self.crun, "run", "--bundle", str(self.bundle), "once"]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, timeout=60)

    @contextlib.contextmanager
    def running(self, *arguments: str) -> Iterator[tuple[subprocess.Popen, int]]:
        """Runs beside; the process and its number."""
        self.write(list(arguments), [], None, [])
        command = [*self.crun, "run", "--bundle", str(self.bundle), "served"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True)
        try:
            number = 0
            while not number and process.poll() is None:
                state = subprocess.run([*self.crun, "state", "served"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
                told = json.loads(state.stdout) if state.returncode == 0 else {}
                number = told["pid"] if told.get("status") == "running" else 0
                time.sleep(0.05)
            yield process, number
        finally:
            subprocess.run([*self.crun, "delete", "--force", "served"], stderr=subprocess.DEVNULL)
            process.kill()
            process.wait()

    def inside(self, *command: str) -> subprocess.CompletedProcess:
        """A command in the running one, as the health check is."""
        return subprocess.run([*self.crun, "exec", "served", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=30)


def read_only(path: Path, destination: str) -> dict:
    return {"destination": destination, "type": "bind", "source": str(path), "options": ["bind", "ro"]}


def answers(number: int, path: str) -> int:
    """The status of the admin port, asked in the network namespace of a process; 0 where nothing answers."""
    ask = "import sys, http.client as h; c = h.HTTPConnection('127.0.0.1', 50052, timeout=2); c.request('GET', sys.argv[1]); print(c.getresponse().status)"
    done = subprocess.run(["nsenter", "--net", "--target", str(number), "python3", "-c", ask, path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return int(done.stdout or 0)


def until_ready(number: int) -> int:
    for _ in range(100):
        if answers(number, "/readyz") == 200:
            return 200
        time.sleep(0.1)
    return answers(number, "/readyz")


def check_score(report, box: Box) -> None:
    picture = [read_only(Path("docs/scene.png").resolve(), "/in/scene.png")]
    score = ["score", "--image", "/in/scene.png", "--response", RESPONSE, "--format", "json"]
    for folder in (None, "/", "/in"):
        done = box.run(*score, mounts=picture, folder=folder)
        where = folder or box.configuration["WorkingDir"]
        flagged = json.loads(done.stdout) if done.returncode == 0 else {}
        tokens = flagged.get("tokens", [])
        report.check(f"scores 19 tokens with the trained model from {where}", len(tokens) == 19, done.stdout[:300] + done.stderr[:300])
    done = box.run("score", "--image", "/in/none.png", "--response", RESPONSE)
    report.check("a missing image ends with code 1 and its name", done.returncode == 1 and "/in/none.png" in done.stderr, done)
    done = box.run("serve", variables=["SLEUTH_NO_SUCH_KEY=1"])
    report.check("a variable that is no setting is refused by name", done.returncode and "SLEUTH_NO_SUCH_KEY" in done.stderr + done.stdout, done)


def check_process(report, number: int) -> None:
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{number}/status").read_text().splitlines() if ":\t" in line)
    report.check("runs as 65532", status["Uid"].split() == ["65532"] * 4, status["Uid"])
    report.check("without capabilities", int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0, status["CapEff"])
    report.check("may gain no rights", status["NoNewPrivs"] == "1", status["NoNewPrivs"])
    mounts = [line.split() for line in Path(f"/proc/{number}/mountinfo").read_text().splitlines()]
    root = next(fields for fields in mounts if fields[4] == "/")
    report.check("on a root that cannot be written", "ro" in root[5].split(","), root)
    writable = [fields[4] for fields in mounts if "rw" in fields[5].split(",") and not fields[4].startswith(("/proc", "/dev"))]
    report.check("nothing else can be written", not writable, writable)


def check_health(report, box: Box, healthcheck: list[str]) -> None:
    done = box.inside(*healthcheck)
    report.check("the health check's command says healthy", done.returncode == 0, done)
    wrong = [*healthcheck[:-1], healthcheck[-1].replace("readyz", "nothing")]
    report.check("it says unhealthy of a path that is not there", box.inside(*wrong).returncode == 1, box.inside(*wrong))
    closed = [*healthcheck[:-1], healthcheck[-1].replace("50052", "1")]
    report.check("it says unhealthy where nothing listens", box.inside(*closed).returncode == 1, box.inside(*closed))


def check_serve(report, box: Box, binary: Path) -> None:
    with box.running("serve") as (process, number):
        report.check("starts", number, process.stdout.read() if not number else "")
        if not number:
            return
        report.check("/readyz answers 200", until_ready(number) == 200)
        report.check("/livez answers 200", answers(number, "/livez") == 200)
        check_process(report, number)
        check_health(report, box, box.configuration["Healthcheck"]["Test"][1:])
        load = ["bench", "--target", "http://127.0.0.1:50051", "--rate", "20", "--seconds", "3", "--warm-up", "0", "--format", "json"]
        done = subprocess.run(["nsenter", "--net", "--target", str(number), str(binary), *load], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        told = json.loads(done.stdout) if done.stdout.startswith("{") else {}
        report.check(f"serves {told.get('counts', {}).get('valid', 0)} items, all accounted for", told.get("passes") and told["counts"]["valid"] > 0, done.stderr[-300:])
        subprocess.run([*box.crun, "kill", "served", "TERM"], check=True)
        code = process.wait(timeout=40)
        report.check("ends with code 0 after SIGTERM", code == 0, code)

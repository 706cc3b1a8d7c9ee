import os
import signal
import subprocess
import sys

import pytest
from serving import BINARY, CAPTION, REPOSITORY, SCENE, until

import sleuth
from sleuth.server import find_binary


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_server_starts_and_stops_with_its_client():
    with sleuth.local(binary=BINARY) as client:
        assert client.score(SCENE, CAPTION).valid
        pid = client.server.pid
        assert alive(pid)
    assert not alive(pid)


def test_a_server_that_dies_is_started_again_and_no_item_is_lost():
    patient = sleuth.Settings(retry=sleuth.Retry(attempts=40, budget=60))
    with sleuth.local(binary=BINARY, settings=patient) as client:
        items = ({"image": SCENE, "response": f"There are {n}."} for n in range(600))
        got = 0
        for n, verdict in enumerate(client.score_many(items)):
            got += verdict.valid
            if n == 20:
                os.kill(client.server.pid, signal.SIGKILL)
        assert got == 600
        assert client.server.restarts == 1


def test_a_server_that_dies_again_and_again_is_left():
    with sleuth.local(binary=BINARY) as client:
        for _ in range(5):
            before = client.server.restarts
            os.kill(client.server.pid, signal.SIGKILL)
            until(lambda before=before: client.server.restarts == before + 1)
        os.kill(client.server.pid, signal.SIGKILL)
        until(lambda: "not started again" in client.server.log)
        with pytest.raises(sleuth.UnavailableError):
            client.score(SCENE, CAPTION)


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_a_server_ends_with_its_process(end):
    script = "import sys, sleuth; c = sleuth.local(); print(c.server.pid, flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SLEUTH": str(BINARY)},
    )
    pid = int(child.stdout.readline())
    assert alive(pid)
    if end == "kill":
        child.kill()
    child.communicate("\n", timeout=30)
    until(lambda: not alive(pid))


def test_a_server_ends_with_a_client_that_is_dropped():
    client = sleuth.local(binary=BINARY)
    pid = client.server.pid
    assert alive(pid)
    del client
    assert not alive(pid)


def test_arguments_reach_the_server():
    with pytest.raises(sleuth.ServerError, match="no-such-model"):
        sleuth.local("--model", "no-such-model", binary=BINARY)
    with sleuth.local("--max-batch-items", "7", binary=BINARY) as client:
        assert client.get_model().name == "mini"


def test_the_binary_is_looked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("SLEUTH", str(BINARY))
    assert find_binary() == BINARY
    monkeypatch.setenv("SLEUTH", str(tmp_path))
    with pytest.raises(sleuth.ServerError, match="no program; give the path"):
        find_binary()
    monkeypatch.delenv("SLEUTH")
    (tmp_path / "sleuth").write_text("#!/bin/sh\n")
    (tmp_path / "sleuth").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary() == tmp_path / "sleuth"
    monkeypatch.setenv("PATH", "")
    checkout = tmp_path / "checkout"
    (checkout / "proto/sleuth/v1").mkdir(parents=True)
    (checkout / "target/release").mkdir(parents=True)
    (tmp_path / "sleuth").rename(checkout / "target/release/sleuth")
    monkeypatch.chdir(checkout / "proto")
    built = REPOSITORY / "target/release/sleuth"
    assert find_binary() == (built if built.exists() else checkout / "target/release/sleuth")

"""A server of one's own, for notebooks and tests."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from concurrent.futures import Future
from pathlib import Path

from sleuth.client import Client
from sleuth.errors import SleuthError
from sleuth.settings import Settings

__all__ = ["LocalServer", "ServerError", "local"]

# 1 is Linux's PR_SET_PDEATHSIG, 15 SIGTERM; the parent may be gone before it is asked for.
DYING_WITH_PARENT = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
LOG_LINES = 50
# So many ends within so many seconds, and it is not started again.
MAX_RESTARTS, RESTART_SECONDS = 5, 60.0
STOP_SECONDS = 10.0


class ServerError(SleuthError):
    """The server cannot be found, or does not start; holds the end of its log."""


def find_binary(binary: str | os.PathLike[str] | None = None) -> Path:
    """The server's binary.

    Args:
        binary: Its path; None for the environment's `SLEUTH`, else the one on `PATH`, else
            `target/release/sleuth` of a checkout around this file or the current folder.

    Raises:
        ServerError: There is none; says where it was looked for.
    """
    named = binary or os.environ.get("SLEUTH")
    if named:
        if not os.access(named, os.X_OK) or Path(named).is_dir():
            raise ServerError(f"{named}: no program; give the path of the sleuth binary")
        return Path(named).absolute()
    if found := shutil.which("sleuth"):
        return Path(found)
    places = [Path(__file__).resolve(), Path.cwd() / "x"]
    for folder in (parent for place in places for parent in place.parents):
        built = folder / "target/release/sleuth"
        if (folder / "proto/sleuth/v1").is_dir() and os.access(built, os.X_OK):
            return built
    raise ServerError(
        "no sleuth binary: not in SLEUTH, not on PATH, and no checkout with target/release/sleuth; "
        "build one with `cargo build --release`"
    )


class LocalServer:
    """A `sleuth serve` of this process: started again if it dies, stopped with this process.

    Args:
        binary: See `find_binary`.
        arguments: More arguments for `sleuth serve`, such as `["--model", "models/tldr"]`.
        timeout: Seconds until it must be ready.

    Attributes:
        url: Where it listens, on loopback; the same after a restart.
        restarts: How often it was started again.

    Raises:
        ServerError: It does not become ready.
    """

    def __init__(
        self,
        binary: str | os.PathLike[str] | None = None,
        arguments: list[str] | None = None,
        timeout: float = 60.0,
    ) -> None:
        self._command = [str(find_binary(binary)), "serve", "--admin-listen", "127.0.0.1:0"]
        self._command += arguments or []
        self._log: deque[str] = deque(maxlen=LOG_LINES)
        self._stopping = threading.Event()
        self._ends: deque[float] = deque(maxlen=MAX_RESTARTS)
        self.restarts = 0
        self._owner = os.getpid()
        self._process: subprocess.Popen[str] | None = None
        first: Future[str] = Future()
        # The kernel tells a child when the thread that started it ends: so it is one that stays.
        self._watcher = threading.Thread(
            target=self._watch, args=(first, timeout), name="sleuth-server", daemon=True
        )
        self._watcher.start()
        self._address = first.result()
        self.url = f"http://{self._address}"
        atexit.register(self.stop)

    @property
    def pid(self) -> int:
        """The process that runs now, or ran last."""
        return self._process.pid if self._process is not None else 0

    @property
    def log(self) -> str:
        """The last lines that it logged."""
        return "\n".join(self._log)

    def stop(self) -> None:
        """Drains and stops it; kills it if that takes long."""
        if self._stopping.is_set() or os.getpid() != self._owner:
            return
        self._stopping.set()
        atexit.unregister(self.stop)
        if self._process is not None:
            _end(self._process)
        self._watcher.join(STOP_SECONDS)

    def _start(self, listen: str, timeout: float) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [*_dying_with_parent(), *self._command, "--listen", listen],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Ctrl-C is for this process, which then stops the server in order.
            start_new_session=True,
        )
        log = threading.Thread(target=self._keep_log, args=(process,), daemon=True)
        log.start()
        watchdog = threading.Timer(timeout, process.kill)
        watchdog.start()
        address, last = "", ""
        try:
            for line in process.stdout or ():
                last = line.strip()
                address = last.removeprefix("listening on ") if "listening on" in last else address
                if last == "ready":
                    return process, address
        finally:
            watchdog.cancel()
        _end(process)
        log.join(STOP_SECONDS)
        raise ServerError(f"the server did not become ready (exit {process.wait()}):\n{self.log}")

    def _keep_log(self, process: subprocess.Popen[str]) -> None:
        for line in process.stderr or ():
            self._log.append(line.rstrip())
        if process.stderr is not None:
            process.stderr.close()

    def _watch(self, first: Future[str], timeout: float) -> None:
        try:
            self._process, address = self._start("127.0.0.1:0", timeout)
        except (ServerError, OSError) as error:
            first.set_exception(error)
            return
        first.set_result(address)
        while True:
            self._process.wait()
            now = time.monotonic()
            many = len(self._ends) == MAX_RESTARTS and now - self._ends[0] < RESTART_SECONDS
            _end(self._process)
            if many:
                self._log.append(f"not started again: it ended {MAX_RESTARTS + 1} times in a row")
            if self._stopping.is_set() or many:
                break
            self._ends.append(now)
            try:
                self._process, _ = self._start(address, timeout)
            except (ServerError, OSError) as error:
                self._log.append(str(error))
                return
            self.restarts += 1
            if self._stopping.is_set():
                _end(self._process)
                break


class LocalClient(Client):
    """A client with a server of its own, as `local` makes it.

    Attributes:
        server: The server; closing the client stops it.
    """

    def __init__(self, server: LocalServer, settings: Settings | None) -> None:
        super().__init__(server.url, settings=settings)
        self.server = server
        weakref.finalize(self, server.stop).atexit = False

    def close(self) -> None:
        """Ends the connection and stops the server."""
        super().close()
        self.server.stop()


def local(
    *arguments: str,
    binary: str | os.PathLike[str] | None = None,
    timeout: float = 60.0,
    settings: Settings | None = None,
) -> LocalClient:
    """Starts a server on loopback, and gives a client of it.

        client = sleuth.local()
        print(client.score("scene.png", "There are two objects.").reward)

    The server is started again if it dies, at most five times a minute. It ends with
    `client.close()`, at the end of this process, and when this process is killed.

    Args:
        *arguments: More arguments for `sleuth serve`, such as `"--model", "models/tldr"`.
        binary: The binary's path; see `find_binary` for where it is looked for otherwise.
        timeout: Seconds until it must be ready.
        settings: The client's.

    Raises:
        ServerError: There is no binary, or the server does not become ready.
    """
    return LocalClient(LocalServer(binary, list(arguments), timeout), settings)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        with contextlib.suppress(OSError):
            process.stdout.close()


def _dying_with_parent() -> list[str]:
    """What a command is put behind so that the kernel ends it with the thread that starts it.

    Python's own hook for a child runs in a fork of this process, and gRPC does not survive that.
    """
    if sys.platform != "linux" or not sys.executable:
        return []
    return [sys.executable, "-ISc", DYING_WITH_PARENT, str(os.getpid())]

"""Things to do later, in one thread for all of a client."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from itertools import count


class Timer:
    """One thing to do; it may be called off."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Does nothing where it was done."""
        self.action = None


class Timers:
    """A thread that waits; it starts with the first timer."""

    def __init__(self) -> None:
        self._wake = threading.Condition()
        self._queue: list[tuple[float, int, Timer]] = []
        self._order = count()
        self._thread: threading.Thread | None = None
        self._closed = False

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Does something in this thread, soon after so many seconds."""
        timer = Timer(action)
        with self._wake:
            heapq.heappush(
                self._queue, (time.monotonic() + max(seconds, 0), next(self._order), timer)
            )
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="sleuth-timers", daemon=True)
                self._thread.start()
            self._wake.notify()
        return timer

    def close(self, timeout: float) -> None:
        """Ends the thread; what is left is not done."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._closed and not self._due():
                    self._wake.wait(self._until())
                if self._closed:
                    return
                timer = heapq.heappop(self._queue)[2]
            if timer.action is not None:
                timer.action()

    def _due(self) -> bool:
        while self._queue and self._queue[0][2].action is None:
            heapq.heappop(self._queue)
        return bool(self._queue) and self._queue[0][0] <= time.monotonic()

    def _until(self) -> float | None:
        return max(self._queue[0][0] - time.monotonic(), 0) if self._queue else None

"""One `ScoreTokens` stream that many items share."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from sleuth.v1 import reward_service_pb2 as rpb
from sleuth.v1 import types_pb2 as pb

if TYPE_CHECKING:
    from sleuth._ticket import Ticket

# What grpc gives is an iterator and a call.
Call = Callable[[Iterator[rpb.ScoreTokensRequest]], Any]


class Link:
    """A stream, what waits to be sent on it, and who waits for replies.

    `waiters`, `takes_items` and `last_id` belong to the session and its lock.
    """

    def __init__(
        self,
        call: Call,
        on_reply: Callable[[Link, rpb.ScoreTokensResponse], None],
        on_end: Callable[[Link, Exception | None], None],
    ) -> None:
        self.waiters: dict[str, Ticket] = {}
        self.takes_items = True
        self.last_id = 0
        self._on_reply, self._on_end = on_reply, on_end
        self._queue: deque[tuple[rpb.ScoreTokensRequest, Future[None] | None]] = deque()
        self._changed = threading.Condition()
        self._closing = self._ended = False
        self._replies = call(self._requests())
        self._reader = threading.Thread(target=self._read, name="sleuth-replies", daemon=True)
        self._reader.start()

    def enter(self, ticket: Ticket) -> pb.Key:
        """Names an item on this stream."""
        self.last_id += 1
        key = pb.Key(item_id=str(self.last_id), attempt=1)
        self.waiters[key.item_id] = ticket
        return key

    def send(self, message: rpb.ScoreTokensRequest, taken: Future[None] | None = None) -> None:
        """Puts a message at the end of the queue; `taken` is done when the transport takes it."""
        with self._changed:
            if not self._ended:
                self._queue.append((message, taken))
                self._changed.notify()
                return
        _done(taken)

    def finish(self) -> None:
        """Closes this side when all is sent; the server finishes what it has."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def cut(self) -> None:
        """Ends the stream at once, as a lost connection would."""
        self._replies.cancel()

    def join(self, timeout: float) -> None:
        """Waits until the stream is over."""
        if self._reader is not threading.current_thread():
            self._reader.join(timeout)

    def _requests(self) -> Iterator[rpb.ScoreTokensRequest]:
        while True:
            with self._changed:
                while not self._queue and not self._closing and not self._ended:
                    self._changed.wait()
                if self._ended or not self._queue:
                    return
                message, taken = self._queue.popleft()
            _done(taken)
            yield message

    def _read(self) -> None:
        error: Exception | None = None
        try:
            for reply in self._replies:
                self._on_reply(self, reply)
        except Exception as e:
            # Whatever it is, nobody may wait for this stream any more.
            error = e
            self.cut()
        with self._changed:
            self._ended = True
            left = [taken for _, taken in self._queue]
            self._queue.clear()
            self._changed.notify()
        for taken in left:
            _done(taken)
        self._on_end(self, error)


def _done(taken: Future[None] | None) -> None:
    if taken is not None and taken.set_running_or_notify_cancel():
        taken.set_result(None)

"""An item on its way, from the first attempt to its verdict."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING

from sleuth._replies import Assembly
from sleuth._timers import Timer
from sleuth.item import Encoded, duration
from sleuth.policy import PolicyTokens
from sleuth.v1 import reward_service_pb2 as rpb
from sleuth.v1 import types_pb2 as pb
from sleuth.verdict import Tokens, Verdict

if TYPE_CHECKING:
    from sleuth._link import Link
    from sleuth._session import Session


class Ticket:
    """A whole item. All but `future` belongs to the session and its lock."""

    def __init__(self, session: Session, encoded: Encoded) -> None:
        self.session, self.encoded = session, encoded
        self.future: Future[Verdict] = Future()
        # A caller's or asyncio's `cancel` of the future gives the item up.
        self.future.add_done_callback(lambda _: session.settled(self))
        self.began = time.monotonic()
        self.attempt = 1
        self.started = False
        self.link: Link | None = None
        self.key: pb.Key | None = None
        self.assembly = Assembly()
        self.deadline: Timer | None = None
        self.pause: Timer | None = None

    @property
    def response(self) -> bytes:
        """The response, as far as it is known."""
        return self.encoded.response

    @property
    def of_policy(self) -> bool:
        """Whether rewards come per policy token."""
        return self.encoded.policy is not None

    def remaining(self) -> float | None:
        """Seconds until there must be a verdict."""
        timeout = self.encoded.timeout
        return None if timeout is None else timeout - (time.monotonic() - self.began)

    def messages(self, key: pb.Key) -> list[rpb.ScoreTokensRequest]:
        """All that there is to send."""
        item = pb.Item(response=self.response)
        item.context.CopyFrom(self.context(key))
        if self.encoded.policy is not None:
            item.policy.CopyFrom(self.encoded.policy)
        return [rpb.ScoreTokensRequest(score=item)]

    def context(self, key: pb.Key) -> pb.Context:
        """The item's context in this attempt."""
        context = pb.Context()
        context.CopyFrom(self.encoded.context)
        context.key.CopyFrom(key)
        context.image.blake3 = self.encoded.image.blake3
        remaining = self.remaining()
        if remaining is not None:
            context.timeout.CopyFrom(duration(remaining))
        return context

    def wait(self) -> Verdict:
        """Waits for the verdict; whatever interrupts this gives the item up."""
        try:
            return self.future.result()
        except CancelledError:
            raise
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Gives the item up."""
        self.future.cancel()


class OpenTicket(Ticket):
    """An item whose response is still being generated."""

    def __init__(self, session: Session, encoded: Encoded, *, of_policy: bool) -> None:
        super().__init__(session, encoded)
        self.parts: list[rpb.Append] = []
        self.text = bytearray()
        self.closed = False
        self.on_scores: list[Callable[[], None]] = []
        self._of_policy = of_policy

    @property
    def response(self) -> bytes:
        """What was appended so far."""
        return bytes(self.text)

    @property
    def of_policy(self) -> bool:
        """Whether appends come with policy tokens."""
        return self._of_policy

    def messages(self, key: pb.Key) -> list[rpb.ScoreTokensRequest]:
        """The item, and all that was appended."""
        opened = rpb.ScoreTokensRequest(open=self.context(key))
        parts = [self.appended(part, key) for part in self.parts]
        closed = [rpb.ScoreTokensRequest(close=key)] if self.closed else []
        return [opened, *parts, *closed]

    @staticmethod
    def appended(part: rpb.Append, key: pb.Key) -> rpb.ScoreTokensRequest:
        """A part of the response as it is sent in this attempt."""
        message = rpb.ScoreTokensRequest(append=part)
        message.append.key.CopyFrom(key)
        return message

    def append(self, text: bytes, policy: PolicyTokens | None) -> Future[None]:
        """Sends more of the response; done when the transport has taken it."""
        taken: Future[None] = Future()
        with self.session.lock:
            offset = len(self.text)
            part = rpb.Append(offset=offset, text=text)
            if policy is not None:
                part.policy.byte_end.extend(offset + end for end in policy.byte_end)
            self.text += text
            self.parts.append(part)
            if self.link is not None and self.key is not None:
                self.link.send(self.appended(part, self.key), taken)
                return taken
        # It is sent with the item when that is sent.
        taken.set_result(None)
        return taken

    def close(self) -> None:
        """Says that the response is whole."""
        with self.session.lock:
            if not self.closed and self.link is not None and self.key is not None:
                self.link.send(rpb.ScoreTokensRequest(close=self.key))
            self.closed = True

    def tokens(self) -> Tokens:
        """What was scored so far."""
        with self.session.lock:
            return self.assembly.tokens(bytes(self.text))

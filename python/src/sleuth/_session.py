"""What a client has on its way: items, their stream, retries and deadlines."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from concurrent.futures import Future, InvalidStateError

import grpc

from sleuth import _replies, _statuses
from sleuth._channel import Address
from sleuth._images import ImageStore
from sleuth._link import Link
from sleuth._ticket import OpenTicket, Ticket
from sleuth._timers import Timers
from sleuth.errors import (
    ClosedError,
    DeadlineError,
    Refusal,
    RefusedError,
    SleuthError,
    UnavailableError,
)
from sleuth.item import Encoded
from sleuth.settings import Settings
from sleuth.v1 import reward_service_pb2 as rpb
from sleuth.v1 import types_pb2 as pb
from sleuth.v1.reward_service_pb2_grpc import RewardServiceStub
from sleuth.verdict import Verdict

# The server says itself when an item's time is over; so much later nobody waits for that.
GRACE_SECONDS = 2.0
CLOSE_SECONDS = 5.0
# What the server does not know or permit now, it will not the next time either.
FINAL_CLASSES = frozenset({"unauthenticated", "denied", "unsupported"})


class Session:
    """Items over one shared stream. Callbacks run in its threads; nothing here blocks."""

    def __init__(self, address: Address, settings: Settings) -> None:
        self.address, self.settings = address, settings
        self.lock = threading.RLock()
        self._closed = False
        self._fresh()
        SESSIONS.add(self)

    def _fresh(self) -> None:
        self._inherited = False
        self._channel = self.address.connect(self.settings)
        self._stub = RewardServiceStub(self._channel)
        self._images = ImageStore(self._stub, self.address, self.settings)
        self._timers = Timers()
        self._waiting: deque[Ticket] = deque()
        self._running: set[Ticket] = set()
        self._link: Link | None = None
        self._links: weakref.WeakSet[Link] = weakref.WeakSet()
        self._limit = self.settings.max_in_flight

    def after_fork(self) -> None:
        """In a child process: threads and connections stayed with the parent.

        New ones are made when they are needed: most children become another program at once.
        """
        self.lock = threading.RLock()
        self._inherited = True

    def _here(self) -> None:
        """Sees to it that threads and connections are this process's own."""
        with self.lock:
            if self._inherited:
                # gRPC must not see the parent's channel end here, so it is kept for good.
                INHERITED.append((self._channel, self._stub, list(self._running)))
                self._fresh()

    @property
    def channel(self) -> grpc.Channel:
        """The connection."""
        self._here()
        return self._channel

    @property
    def stub(self) -> RewardServiceStub:
        """Calls over the connection."""
        self._here()
        return self._stub

    @property
    def images(self) -> ImageStore:
        """Images that the server holds."""
        self._here()
        return self._images

    def submit(self, encoded: Encoded) -> Ticket:
        """Sends a whole item when its turn comes."""
        return self._enter(Ticket(self, encoded))

    def open(self, encoded: Encoded, *, of_policy: bool) -> OpenTicket:
        """Sends an item whose response is still being generated."""
        ticket = OpenTicket(self, encoded, of_policy=of_policy)
        self._enter(ticket)
        return ticket

    def close(self) -> None:
        """Gives up what is unfinished, and ends connection and threads."""
        with self.lock:
            if self._closed or self._inherited:
                return
            self._closed = True
            tickets = [*self._waiting, *self._running]
            links = list(self._links)
        for ticket in tickets:
            _fail(ticket, ClosedError("the client was closed before the verdict"))
        for link in links:
            link.finish()
            link.cut()
        self._timers.close(CLOSE_SECONDS)
        for link in links:
            link.join(CLOSE_SECONDS)
        self.channel.close()

    def cut(self) -> None:
        """Ends the stream as a lost connection would, for tests of what happens then."""
        with self.lock:
            link = self._link
        if link is not None:
            link.cut()

    def settled(self, ticket: Ticket) -> None:
        """An item has its verdict, or was given up."""
        with self.lock:
            for timer in (ticket.deadline, ticket.pause):
                if timer is not None:
                    timer.cancel()
            if ticket.future.cancelled() and ticket.link is not None and ticket.key is not None:
                ticket.link.send(rpb.ScoreTokensRequest(cancel=ticket.key))
            self._leave_link(ticket)
            if ticket.started:
                self._running.discard(ticket)
        self._start_more()

    def _enter(self, ticket: Ticket) -> Ticket:
        self._here()
        with self.lock:
            if self._closed:
                raise ClosedError("the client was closed")
            timeout = ticket.encoded.timeout
            if timeout is not None:
                ticket.deadline = self._timers.after(
                    timeout + GRACE_SECONDS, lambda: self._too_late(ticket)
                )
            self._waiting.append(ticket)
        self._start_more()
        return ticket

    def _start_more(self) -> None:
        starting = []
        with self.lock:
            while self._waiting and len(self._running) < self._limit and not self._closed:
                ticket = self._waiting.popleft()
                if not ticket.future.done():
                    ticket.started = True
                    self._running.add(ticket)
                    starting.append(ticket)
        for ticket in starting:
            self._attempt(ticket)

    def _attempt(self, ticket: Ticket) -> None:
        """Sees to the image, then sends."""
        put = self.images.ensure(ticket.encoded.image)
        put.add_done_callback(lambda put: self._image_is_there(ticket, put))

    def _image_is_there(self, ticket: Ticket, put: Future[None]) -> None:
        error = put.exception()
        if error is None:
            self._send(ticket)
        elif isinstance(error, RefusedError) and error.refusal.error_class in FINAL_CLASSES:
            _fail(ticket, error)
        elif isinstance(error, RefusedError):
            self._invalid(ticket, _replies.refused(error.refusal, ticket.attempt))
        else:
            self._lost(ticket, error)

    def _send(self, ticket: Ticket) -> None:
        with self.lock:
            if ticket.future.done() or self._closed:
                return
            if self._link is None or not self._link.takes_items:
                metadata = self.address.metadata
                self._link = Link(
                    lambda requests: self.stub.ScoreTokens(requests, metadata=metadata),
                    self._on_reply,
                    self._on_end,
                )
                self._links.add(self._link)
            link = self._link
            ticket.assembly = _replies.Assembly()
            ticket.link, ticket.key = link, link.enter(ticket)
            for message in ticket.messages(ticket.key):
                link.send(message)

    def _leave_link(self, ticket: Ticket) -> None:
        link = ticket.link
        if link is not None and ticket.key is not None:
            link.waiters.pop(ticket.key.item_id, None)
            if not link.takes_items and not link.waiters:
                link.finish()
        ticket.link = ticket.key = None

    def _on_reply(self, link: Link, reply: rpb.ScoreTokensResponse) -> None:
        kind = reply.WhichOneof("kind")
        if kind == "scores":
            self._on_scores(link, reply.scores)
        elif kind == "verdict":
            self._on_verdict(link, reply.verdict)
        elif kind == "notice":
            self._on_notice(link, reply.notice)

    def _on_scores(self, link: Link, scores: pb.Scores) -> None:
        with self.lock:
            ticket = link.waiters.get(scores.key.item_id)
            if ticket is None:
                return
            try:
                ticket.assembly.push(scores)
            except _replies.UnreadableError as error:
                failed: SleuthError | None = error
            else:
                failed = None
            listeners = list(ticket.on_scores) if isinstance(ticket, OpenTicket) else []
        if failed is not None:
            _fail(ticket, failed)
        for listener in listeners:
            listener()

    def _on_verdict(self, link: Link, wire: pb.Verdict) -> None:
        with self.lock:
            ticket = link.waiters.get(wire.key.item_id)
            if ticket is None:
                return
            self._leave_link(ticket)
        try:
            verdict = _replies.verdict(
                wire, ticket.assembly, ticket.response, ticket.attempt, ticket.of_policy
            )
        except _replies.UnreadableError as error:
            _fail(ticket, error)
            return
        if verdict.valid:
            _resolve(ticket, verdict)
        else:
            self._invalid(ticket, verdict)

    def _on_notice(self, link: Link, notice: pb.Notice) -> None:
        with self.lock:
            if notice.kind == pb.NOTICE_KIND_DRAINING:
                link.takes_items = False
            elif notice.kind == pb.NOTICE_KIND_CREDIT and notice.max_unfinished_items:
                self._limit = min(self.settings.max_in_flight, notice.max_unfinished_items)
        self._start_more()

    def _on_end(self, link: Link, error: Exception | None) -> None:
        with self.lock:
            link.takes_items = False
            tickets = list(link.waiters.values())
            link.waiters.clear()
            for ticket in tickets:
                ticket.link = ticket.key = None
        reason: Exception = UnavailableError(f"{self.address.url}: the stream ended")
        if isinstance(error, grpc.RpcError):
            reason = _statuses.error_of(error, self.address.url)
        elif error is not None:
            reason = error
        for ticket in tickets:
            self._lost(ticket, reason)

    def _invalid(self, ticket: Ticket, verdict: Verdict) -> None:
        """Tries an item again that has no reward, or says so."""
        refusal = verdict.refusal
        if refusal is None or not refusal.retryable:
            _resolve(ticket, verdict)
            return
        image_unknown = refusal.reason == "image_unknown"
        if image_unknown:
            self.images.forget(ticket.encoded.image.blake3)
        # What is not here cannot be put again.
        hopeless = image_unknown and ticket.encoded.image.data is None
        if hopeless or not self._again(ticket, refusal, at_once=image_unknown):
            _resolve(ticket, verdict)

    def _lost(self, ticket: Ticket, error: BaseException) -> None:
        """Tries an item again whose stream broke, or fails it."""
        refusal = error.refusal if isinstance(error, RefusedError) else None
        final = refusal is not None and refusal.error_class in FINAL_CLASSES
        if final or not self._again(ticket, refusal, at_once=False):
            _fail(ticket, error)

    def _again(self, ticket: Ticket, refusal: Refusal | None, *, at_once: bool) -> bool:
        asked = None if refusal is None else refusal.retry_after
        with self.lock:
            spent = time.monotonic() - ticket.began
            pause = self.settings.retry.pause(ticket.attempt, asked, spent)
            remaining = ticket.remaining()
            if pause is None or (remaining is not None and remaining <= 0) or self._closed:
                return False
            ticket.attempt += 1
            ticket.pause = self._timers.after(
                0 if at_once else pause, lambda: self._attempt(ticket)
            )
        return True

    def _too_late(self, ticket: Ticket) -> None:
        timeout = ticket.encoded.timeout
        with self.lock:
            if ticket.link is not None and ticket.key is not None:
                ticket.link.send(rpb.ScoreTokensRequest(cancel=ticket.key))
        _fail(ticket, DeadlineError(f"{self.address.url}: no verdict within {timeout} s"))


SESSIONS: weakref.WeakSet[Session] = weakref.WeakSet()
INHERITED: list[object] = []


def _resolve(ticket: Ticket, verdict: Verdict) -> None:
    try:
        ticket.future.set_result(verdict)
    except InvalidStateError:
        return  # It was given up meanwhile.


def _fail(ticket: Ticket, error: BaseException) -> None:
    try:
        ticket.future.set_exception(error)
    except InvalidStateError:
        return  # It was given up meanwhile.


def _after_fork() -> None:
    for session in list(SESSIONS):
        session.after_fork()


def close_all() -> None:
    """At the end of the process: gRPC's threads must not outlive the interpreter."""
    for session in list(SESSIONS):
        session.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

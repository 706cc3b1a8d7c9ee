"""What happens while a response is corrected."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import grpc

from sleuth import _replies, _statuses
from sleuth.errors import Refusal, RefusedError, SleuthError, UnavailableError
from sleuth.item import Encoded, choice
from sleuth.v1 import reward_service_pb2 as rpb
from sleuth.v1 import types_pb2 as pb
from sleuth.verdict import Span, Tokens, Verdict

if TYPE_CHECKING:
    from sleuth._session import Session

__all__ = [
    "Attempt",
    "Change",
    "CorrectEvent",
    "Correction",
    "Corrector",
    "Final",
    "Guidance",
    "Proposal",
    "Rescored",
    "Scored",
]

Corrector = Literal["builtin", "endpoint", "guidance"]
"""Who proposes repairs: the backbone, an OpenAI-compatible server, or the caller's own policy."""
Guidance = Literal["token", "response", "naive"]
"""What a corrector is told: which words are flagged, that something is, or nothing."""


@dataclass(frozen=True)
class Scored:
    """The response as it came was scored.

    Attributes:
        verdict: Its rewards.
        words: Flagged tokens merged into spans of whole words.
    """

    verdict: Verdict
    words: tuple[Span, ...]


@dataclass(frozen=True)
class Proposal:
    """A repair that will be scored.

    Attributes:
        round: From 1.
        candidate: From 0 within the round.
        response: The response with the repair; empty for guidance.
        replaced: What of the earlier response it replaces.
        guidance: Of the corrector `guidance`: the prompt for the caller's policy.
    """

    round: int
    candidate: int
    response: str
    replaced: tuple[Span, ...]
    guidance: str


@dataclass(frozen=True)
class Rescored:
    """A repair was scored, or dropped unscored.

    Attributes:
        round: As in the proposal.
        candidate: As in the proposal.
        verdict: Its rewards; None where it was dropped unscored.
        kept: Whether it replaces what was there.
        drop_reason: Why not, such as `small_gain`; empty where it was kept.
    """

    round: int
    candidate: int
    verdict: Verdict | None
    kept: bool
    drop_reason: str


@dataclass(frozen=True)
class Change:
    """A part of the response that is another now.

    Attributes:
        before: Bytes of the response as it came.
        after: Bytes of the response to use.
    """

    before: Span
    after: Span


@dataclass(frozen=True)
class Attempt:
    """One repair, in short; reward and flagged_tokens are None where it was dropped unscored."""

    round: int
    candidate: int
    reward: float | None
    flagged_tokens: int | None
    kept: bool
    drop_reason: str


@dataclass(frozen=True)
class Final:
    """The end of a correction.

    Attributes:
        response: The response to use; unchanged where no repair was kept; empty where the verdict
            is invalid.
        verdict: Rewards of `response`.
        rounds: Rounds taken.
        kept: Repairs kept.
        changes: How `response` differs from what came, in order.
        reward_before: The reward of the response as it came; None where the verdict is invalid.
        attempts: Every repair, in order.
        stopped: Why it ended before its time, where it did; what was kept by then stands.
    """

    response: str
    verdict: Verdict
    rounds: int
    kept: int
    changes: tuple[Change, ...]
    reward_before: float | None
    attempts: tuple[Attempt, ...]
    stopped: Refusal | None


CorrectEvent = Scored | Proposal | Rescored | Final
"""What a correction tells."""


class Correction:
    """A correction under way: an iterator of events, of which the last is `Final`.

    Leaving it early, or a `with` around it, gives the item up.
    """

    def __init__(
        self, session: Session, encoded: Encoded, wire: rpb.CorrectItem, client: object
    ) -> None:
        self._session, self._encoded, self._wire = session, encoded, wire
        # A client that is dropped is closed, so it is kept as long as this.
        self._client = client
        self._stop = threading.Event()
        self._call: Any = None
        self._tokens: Tokens | None = None
        self._response = encoded.response
        self._proposed: dict[tuple[int, int], bytes] = {}
        self._events = self._run()

    def __iter__(self) -> Iterator[CorrectEvent]:
        return self

    def __next__(self) -> CorrectEvent:
        return next(self._events)

    def __enter__(self) -> Correction:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def final(self) -> Final:
        """Waits for the end, whatever happens before it.

        Raises:
            RefusedError: The server refused the call.
            UnavailableError: The connection was lost.
        """
        for event in self:
            if isinstance(event, Final):
                return event
        raise UnavailableError(f"{self._session.address.url}: the correction ended without its end")

    def close(self) -> None:
        """Gives the item up, if it is unfinished."""
        self._stop.set()
        if self._call is not None:
            self._call.cancel()

    def _run(self) -> Iterator[CorrectEvent]:
        attempt, began = 1, False
        while True:
            asked, failed = None, None
            try:
                self._session.images.ensure(self._encoded.image).result()
                for event in self._once(attempt):
                    failed = self._retryable(event) if not began else None
                    if failed is not None:
                        break
                    began = True
                    yield event
                    if isinstance(event, Final):
                        return
                error: SleuthError = UnavailableError("the stream ended before the correction")
            except grpc.RpcError as e:
                error = _statuses.error_of(e, self._session.address.url)
            except SleuthError as e:
                error = e
            if isinstance(error, RefusedError):
                asked = error.refusal.retry_after
            elif failed is not None:
                asked = failed.verdict.refusal.retry_after if failed.verdict.refusal else None
            may = not began and (
                failed is not None
                or isinstance(error, UnavailableError)
                or (isinstance(error, RefusedError) and error.refusal.retryable)
            )
            pause = self._session.settings.retry.pause(attempt, asked, 0.0) if may else None
            if pause is None or self._stop.wait(pause):
                if failed is not None:
                    yield failed
                    return
                raise error
            attempt += 1

    def _retryable(self, event: CorrectEvent) -> Final | None:
        refusal = event.verdict.refusal if isinstance(event, Final) else None
        if refusal is None or not refusal.retryable or not isinstance(event, Final):
            return None
        if refusal.reason == "image_unknown":
            self._session.images.forget(self._encoded.image.blake3)
            if self._encoded.image.data is None:
                return None
        return event

    def _once(self, attempt: int) -> Iterator[CorrectEvent]:
        key = pb.Key(item_id="0", attempt=attempt)
        self._wire.item.context.key.CopyFrom(key)
        requests = iter([rpb.CorrectRequest(item=self._wire)])
        self._call = self._session.stub.Correct(requests, metadata=self._session.address.metadata)
        try:
            for reply in self._call:
                event = self._event(reply, attempt)
                if event is not None:
                    yield event
        finally:
            self._call.cancel()

    def _event(self, reply: rpb.CorrectResponse, attempt: int) -> CorrectEvent | None:
        kind = reply.WhichOneof("kind")
        if kind == "scored":
            verdict = _valid(reply.scored, self._response, attempt)
            self._tokens = verdict.tokens
            return Scored(verdict, _replies.spans(reply.scored.words))
        if kind == "proposal":
            return self._proposal(reply.proposal)
        if kind == "rescored":
            return self._rescored(reply.rescored, attempt)
        return self._final(reply.final, attempt) if kind == "final" else None

    def _proposal(self, wire: rpb.Proposal) -> Proposal:
        self._proposed[wire.round, wire.candidate] = wire.response
        replaced = _replies.spans(wire.replaced)
        response, guidance = _text(wire.response), _text(wire.guidance)
        return Proposal(wire.round, wire.candidate, response, replaced, guidance)

    def _rescored(self, wire: rpb.Rescored, attempt: int) -> Rescored:
        verdict = None
        if wire.HasField("valid"):
            response = self._proposed.get((wire.round, wire.candidate), b"")
            verdict = _valid(wire, response, attempt)
            if wire.kept:
                self._tokens = verdict.tokens
        elif wire.HasField("invalid"):
            verdict = _replies.refused(_replies.refusal_of(wire.invalid), attempt)
        return Rescored(wire.round, wire.candidate, verdict, wire.kept, _dropped(wire.drop_reason))

    def _final(self, wire: rpb.Final, attempt: int) -> Final:
        assembly = _replies.Assembly()
        verdict = _replies.verdict(wire.verdict, assembly, wire.response, attempt, of_policy=True)
        if verdict.valid and self._tokens is not None:
            verdict = verdict.with_tokens(self._tokens)
        return Final(
            response=_text(wire.response),
            verdict=verdict,
            rounds=wire.rounds,
            kept=wire.kept,
            changes=tuple(Change(_span(c.before), _span(c.after)) for c in wire.changes),
            reward_before=wire.reward_before if wire.HasField("reward_before") else None,
            attempts=tuple(_attempt(a) for a in wire.attempts),
            stopped=_replies.refusal_of(wire.stopped) if wire.HasField("stopped") else None,
        )


def encode_correction(
    encoded: Encoded,
    corrector: Corrector | None,
    guidance: Guidance | None,
    max_rounds: int,
    max_candidates: int,
    seed: int,
) -> rpb.CorrectItem:
    """An item to correct, as it is sent."""
    wire = rpb.CorrectItem(max_rounds=max_rounds, max_candidates=max_candidates, seed=seed)
    wire.item.context.CopyFrom(encoded.context)
    wire.item.context.image.blake3 = encoded.image.blake3
    if encoded.timeout is not None:
        wire.item.context.timeout.FromNanoseconds(int(encoded.timeout * 1e9))
    wire.item.response = encoded.response
    wire.corrector = choice(corrector, "corrector", rpb.Corrector, "CORRECTOR_")
    wire.guidance = choice(guidance, "guidance", rpb.Guidance, "GUIDANCE_")
    return wire


def _valid(wire: Any, response: bytes, attempt: int) -> Verdict:
    assembly = _replies.Assembly()
    assembly.push(wire.scores)
    return _replies.verdict(pb.Verdict(valid=wire.valid), assembly, response, attempt, False)


def _attempt(wire: rpb.Attempt) -> Attempt:
    return Attempt(
        wire.round,
        wire.candidate,
        wire.reward if wire.HasField("reward") else None,
        wire.flagged_tokens if wire.HasField("flagged_tokens") else None,
        wire.kept,
        _dropped(wire.drop_reason),
    )


def _dropped(number: int) -> str:
    if number == 0:
        return ""
    if number not in rpb.DropReason.values():
        return "other"
    return rpb.DropReason.Name(number).removeprefix("DROP_REASON_").lower()


def _span(wire: pb.Span) -> Span:
    return Span(wire.start, wire.end)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")

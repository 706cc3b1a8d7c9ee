"""What replies say about items."""

from __future__ import annotations

from sleuth.errors import Refusal, SleuthError
from sleuth.v1 import types_pb2 as pb
from sleuth.verdict import Cache, Sentence, Span, Timing, Tokens, Verdict, columns

UNKNOWN_CLASS = "model_failure"


class UnreadableError(SleuthError):
    """The server broke the contract."""


class Assembly:
    """The scores of an item that came so far."""

    def __init__(self) -> None:
        self.start: list[int] = []
        self.end: list[int] = []
        self.reward: list[float] = []
        self.logit: list[float] = []
        self.coverage: list[float] = []

    def push(self, scores: pb.Scores) -> None:
        """Adds the next tokens.

        Raises:
            UnreadableError: They are not the next, or the columns differ in length.
        """
        count = len(scores.start)
        lengths = {len(c) for c in (scores.end, scores.reward, scores.logit, scores.coverage)}
        if scores.first_token != len(self.start) or lengths - {count}:
            raise UnreadableError(
                f"scores begin at token {scores.first_token} after {len(self.start)}, in columns "
                f"of {count} and {sorted(lengths)}"
            )
        self.start += scores.start
        self.end += scores.end
        self.reward += scores.reward
        self.logit += scores.logit
        self.coverage += scores.coverage

    def tokens(self, response: bytes) -> Tokens:
        """What came so far."""
        return columns(self.start, self.end, self.reward, self.logit, self.coverage, response)


def verdict(
    wire: pb.Verdict, assembly: Assembly, response: bytes, attempts: int, of_policy: bool
) -> Verdict:
    """The end of an item.

    Raises:
        UnreadableError: It is neither valid nor invalid, or tokens are missing.
    """
    outcome = wire.WhichOneof("outcome")
    if outcome == "invalid":
        return Verdict(wire.version, refusal_of(wire.invalid), attempts)
    if outcome != "valid":
        raise UnreadableError("a verdict is neither valid nor invalid")
    valid = wire.valid
    if not of_policy and valid.tokens != len(assembly.start):
        raise UnreadableError(f"a verdict counts {valid.tokens} tokens, {len(assembly.start)} came")
    return Verdict(
        version=wire.version,
        attempts=attempts,
        timing=timing_of(wire.timing) if wire.HasField("timing") else None,
        cache=_cache(wire.cache) if wire.HasField("cache") else None,
        _reward=valid.reward,
        _tokens=assembly.tokens(response),
        _aggregation=pb.Aggregation.Name(valid.aggregation).removeprefix("AGGREGATION_").lower(),
        _sentences=tuple(Sentence(s.span.start, s.span.end, s.reward) for s in valid.sentences),
        _flagged=spans(valid.flagged),
        _batch_invariant=valid.batch_invariant,
        _duplicates_joined=valid.duplicates_joined,
    )


def refused(refusal: Refusal, attempts: int) -> Verdict:
    """The verdict of an item that could not even be sent."""
    return Verdict(refusal=refusal, attempts=attempts)


def refusal_of(wire: pb.Invalid) -> Refusal:
    """Why an item has no reward."""
    number = getattr(wire, "class")
    known = pb.ErrorClass.values()[1:]
    name = pb.ErrorClass.Name(number) if number in known else UNKNOWN_CLASS
    told_when = wire.HasField("retry_after")
    retry_after = wire.retry_after.ToNanoseconds() / 1e9 if told_when else None
    return Refusal(
        error_class=name.removeprefix("ERROR_CLASS_").lower(),
        reason=wire.reason,
        detail=wire.detail,
        field=wire.field,
        retryable=wire.retryable,
        retry_after=retry_after,
    )


def spans(wire: object) -> tuple[Span, ...]:
    """Ranges of bytes."""
    return tuple(Span(s.start, s.end) for s in wire)  # type: ignore[attr-defined]


def timing_of(wire: pb.Timing) -> Timing:
    """In seconds."""
    return Timing(wire.prepare_micros / 1e6, wire.queue_micros / 1e6, wire.compute_micros / 1e6)


def _cache(wire: pb.CacheUse) -> Cache:
    return Cache(wire.prefix_positions_reused, wire.prefix_positions_computed, wire.vision_reused)

"""What comes back for an item."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

from sleuth.errors import InvalidRewardError, Refusal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Cache", "Sentence", "Span", "Timing", "Token", "Tokens", "Verdict"]

T = TypeVar("T")


class Span(NamedTuple):
    """A half-open range of bytes of the response, as UTF-8."""

    start: int
    end: int


class Sentence(NamedTuple):
    """A sentence's reward, aggregated as the response's.

    Attributes:
        start: First byte in the response.
        end: One past the last byte.
        reward: Its reward.
    """

    start: int
    end: int
    reward: float


class Timing(NamedTuple):
    """Where an item's time went, in seconds.

    Attributes:
        prepare: Decoding, resizing and tokenising.
        queue: From submission to the start of the batch.
        compute: The batch's forward pass.
    """

    prepare: float
    queue: float
    compute: float


class Cache(NamedTuple):
    """What was computed before and used again.

    Attributes:
        prefix_positions_reused: Image and prompt positions whose keys and values were held.
        prefix_positions_computed: Image and prompt positions computed for this item.
        vision_reused: Whether the vision tower's output was held.
    """

    prefix_positions_reused: int
    prefix_positions_computed: int
    vision_reused: bool


class Token(NamedTuple):
    """One token: a row of [`Tokens`][sleuth.Tokens].

    Attributes:
        text: Its bytes as text, with U+FFFD where they are a part of a character.
        start: First byte in the response.
        end: One past the last byte.
        reward: Probability that it is grounded in the image, 0 to 1; NaN where coverage is 0.
        logit: The head's output; NaN where coverage is 0.
        coverage: Share of its bytes that has rewards, 0 to 1.
    """

    text: str
    start: int
    end: int
    reward: float
    logit: float
    coverage: float


@dataclass(frozen=True, eq=False)
class Tokens:
    """Rewards of a response's tokens, in columns of equal length T, in token order.

    They are the policy's tokens where the item came with them, else the reward model's. With numpy
    installed the columns are arrays of shape (T,), else tuples.

    Attributes:
        start: First byte of each token in the response; int64.
        end: One past its last byte; int64.
        reward: Probability that it is grounded in the image, 0 to 1; float32. NaN where coverage
            is 0, as for a policy's own `<eos>`.
        logit: The head's output; float32. NaN where coverage is 0.
        coverage: Share of its bytes that has rewards, 0 to 1; float32.
        response: The response, as UTF-8.
    """

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    reward: NDArray[np.float32]
    logit: NDArray[np.float32]
    coverage: NDArray[np.float32]
    response: bytes = b""

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, index: int) -> Token:
        start, end = int(self.start[index]), int(self.end[index])
        return Token(
            self.response[start:end].decode("utf-8", "replace"),
            start,
            end,
            float(self.reward[index]),
            float(self.logit[index]),
            float(self.coverage[index]),
        )

    def __iter__(self) -> Iterator[Token]:
        return (self[index] for index in range(len(self)))


def columns(
    start: Sequence[int],
    end: Sequence[int],
    reward: Sequence[float],
    logit: Sequence[float],
    coverage: Sequence[float],
    response: bytes,
) -> Tokens:
    """Columns as arrays where numpy is installed, else as tuples."""
    try:
        import numpy as np
    except ModuleNotFoundError:
        plain: Any = tuple
        return Tokens(
            plain(start), plain(end), plain(reward), plain(logit), plain(coverage), response
        )
    places = [np.asarray(column, dtype=np.int64) for column in (start, end)]
    values = [np.asarray(column, dtype=np.float32) for column in (reward, logit, coverage)]
    return Tokens(places[0], places[1], values[0], values[1], values[2], response)


@dataclass(frozen=True, eq=False, repr=False)
class Verdict:
    """The end of an item: a reward, or the reason why there is none.

    A valid one is a number: `float(v)`, arithmetic, comparison, numpy and torch take its reward.
    An invalid one is none: each of these raises
    [`InvalidRewardError`][sleuth.InvalidRewardError], which names the reason. Neither has a truth
    value; ask for `.valid`.

    Attributes:
        version: The version that scored; empty where none did.
        refusal: Why there is no reward; None where there is one.
        attempts: How often the item was sent.
        timing: Where its time went; None where it was not scored.
        cache: What was computed before and used again; None where the server does not know.
    """

    version: str = ""
    refusal: Refusal | None = None
    attempts: int = 1
    timing: Timing | None = None
    cache: Cache | None = None
    _reward: float | None = None
    _tokens: Tokens | None = None
    _aggregation: str = ""
    _sentences: tuple[Sentence, ...] = ()
    _flagged: tuple[Span, ...] = ()
    _batch_invariant: bool = False
    _duplicates_joined: int = 0

    @property
    def valid(self) -> bool:
        """Whether there is a reward."""
        return self._reward is not None

    @property
    def reward(self) -> float:
        """The response's reward: 0 to 1, unless `aggregation` is `log_sum` or `count_below`.

        Raises:
            InvalidRewardError: There is none.
        """
        if self._reward is None:
            raise InvalidRewardError(self)
        return self._reward

    @property
    def tokens(self) -> Tokens:
        """Rewards of the response's tokens; of the policy's, where the item came with them.

        Raises:
            InvalidRewardError: There are none.
        """
        if self._tokens is None:
            raise InvalidRewardError(self)
        return self._tokens

    @property
    def sentences(self) -> tuple[Sentence, ...]:
        """Rewards of sentences, in order. Raises InvalidRewardError where there are none."""
        return self._scored(self._sentences)

    @property
    def flagged(self) -> tuple[Span, ...]:
        """Runs of tokens whose reward is not above the threshold. Raises InvalidRewardError."""
        return self._scored(self._flagged)

    @property
    def aggregation(self) -> str:
        """How the reward was aggregated, such as `mean_log`. Raises InvalidRewardError."""
        return self._scored(self._aggregation)

    @property
    def batch_invariant(self) -> bool:
        """Whether the same bits come back whatever shares the batch. Raises InvalidRewardError."""
        return self._scored(self._batch_invariant)

    @property
    def duplicates_joined(self) -> int:
        """Requests that were answered by this computation, beyond the first."""
        return self._scored(self._duplicates_joined)

    @property
    def reason(self) -> str:
        """The reason's stable name, such as `image_damaged`; empty where there is a reward."""
        return self.refusal.reason if self.refusal else ""

    def reward_or(self, default: T) -> float | T:
        """The reward, or `default` where there is none."""
        return default if self._reward is None else self._reward

    def with_tokens(self, tokens: Tokens) -> Verdict:
        """The same verdict over other columns of tokens."""
        return replace(self, _tokens=tokens)

    def _scored(self, value: T) -> T:
        if self._reward is None:
            raise InvalidRewardError(self)
        return value

    def __repr__(self) -> str:
        if self._reward is None:
            return f"Verdict(invalid: {self.refusal})"
        count = 0 if self._tokens is None else len(self._tokens)
        return (
            f"Verdict(reward={self._reward:.6g}, aggregation={self._aggregation!r}, "
            f"tokens={count}, version={self.version[:12]!r})"
        )

    def __bool__(self) -> NoReturn:
        self._scored(None)
        raise TypeError("a verdict has no truth value: ask for .valid, or compare .reward")

    def __float__(self) -> float:
        return self.reward

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        import numpy as np

        if copy is False:
            raise ValueError("a verdict becomes an array by copying alone")
        return np.array(self.reward, dtype=dtype)

    def __dlpack__(self, **options: Any) -> Any:
        return self.__array__().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        # The CPU's.
        return 1, 0

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Verdict):
            return self is other
        return self.reward == other

    def __lt__(self, other: float | Verdict) -> bool:
        return self.reward < float(other)

    def __le__(self, other: float | Verdict) -> bool:
        return self.reward <= float(other)

    def __gt__(self, other: float | Verdict) -> bool:
        return self.reward > float(other)

    def __ge__(self, other: float | Verdict) -> bool:
        return self.reward >= float(other)

    def __add__(self, other: float | Verdict) -> float:
        return self.reward + float(other)

    def __radd__(self, other: float) -> float:
        return other + self.reward

    def __sub__(self, other: float | Verdict) -> float:
        return self.reward - float(other)

    def __rsub__(self, other: float) -> float:
        return other - self.reward

    def __mul__(self, other: float | Verdict) -> float:
        return self.reward * float(other)

    def __rmul__(self, other: float) -> float:
        return other * self.reward

    def __truediv__(self, other: float | Verdict) -> float:
        return self.reward / float(other)

    def __rtruediv__(self, other: float) -> float:
        return other / self.reward

    def __neg__(self) -> float:
        return -self.reward

    def __pos__(self) -> float:
        return self.reward

    def __abs__(self) -> float:
        return abs(self.reward)

    def __pow__(self, other: float) -> float:
        return float(self.reward**other)

    def __int__(self) -> NoReturn:
        self._scored(None)
        raise TypeError("a reward is no whole number: use .reward")

    def __round__(self, digits: int | None = None) -> float:
        return round(self.reward, digits if digits is not None else 0)

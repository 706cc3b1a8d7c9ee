"""Why there is no reward, or no answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sleuth.verdict import Verdict

__all__ = [
    "ClosedError",
    "DeadlineError",
    "InputError",
    "InvalidRewardError",
    "Refusal",
    "RefusedError",
    "SleuthError",
    "TokenizerMismatchError",
    "UnavailableError",
]


@dataclass(frozen=True)
class Refusal:
    """What a server says instead of a reward.

    Attributes:
        error_class: What kind of failure, such as `invalid_request`, `quota` or `overload`.
        reason: A stable name such as `image_damaged`; may be empty.
        detail: For people. Names fields and limits, never content.
        field: The field at fault as a dotted path; empty if none is.
        retryable: Whether the same item may succeed later or elsewhere.
        retry_after: When to try again, in seconds, where the server says so.
    """

    error_class: str
    reason: str
    detail: str = ""
    field: str = ""
    retryable: bool = False
    retry_after: float | None = None

    def __str__(self) -> str:
        """What it says, with the field in front."""
        place = f"{self.field}: " if self.field else ""
        name = f"{self.error_class}, {self.reason}" if self.reason else self.error_class
        return f"{place}{self.detail or 'no detail'} ({name})"


class SleuthError(Exception):
    """Any error of this package that is not about a value of the wrong type."""


class InputError(SleuthError, ValueError):
    """What was given cannot be sent. The message names the field and what to do."""


class TokenizerMismatchError(InputError):
    """The policy's tokens do not spell the response."""


class InvalidRewardError(SleuthError, ValueError):
    """An item without a reward was used as a number.

    Attributes:
        verdict: The invalid verdict; `verdict.refusal` says why.
    """

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(
            f"the item has no reward: {verdict.refusal}; "
            "look at .valid first, or use .reward_or(None)"
        )
        self.verdict = verdict

    def __reduce__(self) -> tuple[type[InvalidRewardError], tuple[Verdict]]:
        """Pickles by the verdict."""
        return InvalidRewardError, (self.verdict,)


class RefusedError(SleuthError):
    """The server refused a call as a whole.

    Attributes:
        refusal: Why.
    """

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal

    def __reduce__(self) -> tuple[type[RefusedError], tuple[Refusal]]:
        """Pickles by the refusal."""
        return RefusedError, (self.refusal,)


class UnavailableError(SleuthError, ConnectionError):
    """The server cannot be reached, or the connection was lost more often than is tried again."""


class DeadlineError(SleuthError, TimeoutError):
    """The item's time is over, and the server did not say so itself."""


class ClosedError(SleuthError):
    """The client or the open item was closed before."""

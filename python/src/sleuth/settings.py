"""How a client connects, how much it has on its way, and what it tries again."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import random

from sleuth.errors import InputError

__all__ = ["Retry", "Settings"]


@dataclass(frozen=True)
class Retry:
    """What is tried again: what the server calls retryable, and lost connections.

    Every attempt has the item's idempotency key, so that a server scores it once, however often it
    is asked.

    Attributes:
        attempts: Attempts at an item, the first included; 1 tries nothing again.
        first_pause: Seconds before the second attempt, where the server names none; doubled for
            each one after, and lengthened by up to half at random.
        longest_pause: Longest pause in seconds, whatever the server says.
        budget: Seconds after its first attempt from which on an item is not tried again.
    """

    attempts: int = 6
    first_pause: float = 0.05
    longest_pause: float = 10.0
    budget: float = 120.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise InputError(f"retry.attempts: at least 1, not {self.attempts}")
        for name in ("first_pause", "longest_pause", "budget"):
            if not getattr(self, name) >= 0:
                raise InputError(f"retry.{name}: seconds, at least 0, not {getattr(self, name)}")

    def pause(self, attempt: int, asked: float | None, spent: float) -> float | None:
        """How long to wait after an attempt failed.

        Args:
            attempt: Which one, from 1.
            asked: Seconds that the server asked for.
            spent: Seconds since the first attempt began.

        Returns:
            Seconds, or None where it is not tried again.
        """
        if attempt >= self.attempts:
            return None
        doubled = self.first_pause * 2.0 ** min(attempt - 1, 16)
        pause = min(doubled if asked is None else asked, self.longest_pause)
        pause *= 1 + 0.5 * random()
        return pause if spent + pause <= self.budget else None


@dataclass(frozen=True)
class Settings:
    """How a client connects, and how much it has on its way.

    Attributes:
        max_in_flight: Items without a verdict on the stream; more wait their turn here. The server
            may allow fewer.
        connect_timeout: Seconds to connect.
        call_timeout: Seconds that calls other than scoring may take.
        keepalive_interval: Seconds between HTTP/2 pings while something is on its way.
        keepalive_timeout: A connection whose ping is unanswered for so many seconds is closed.
        retry: What is tried again.
    """

    max_in_flight: int = 256
    connect_timeout: float = 10.0
    call_timeout: float = 60.0
    keepalive_interval: float = 20.0
    keepalive_timeout: float = 20.0
    retry: Retry = field(default_factory=Retry)

    def __post_init__(self) -> None:
        if self.max_in_flight < 1:
            raise InputError(f"max_in_flight: at least 1, not {self.max_in_flight}")

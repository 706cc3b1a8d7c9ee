"""An item whose response is still being generated."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent.futures import Future
from types import TracebackType

from sleuth._ticket import OpenTicket
from sleuth.errors import ClosedError, InputError
from sleuth.item import text as encode_text
from sleuth.policy import PolicyTokens
from sleuth.verdict import Token, Tokens, Verdict

__all__ = ["OpenItem"]


class OpenItem:
    """A response in pieces: a token is scored once no later text can change it.

    The rewards have the bits of the whole response scored at once. Should the connection be lost,
    the item is opened again under its idempotency key and what was appended is sent again.

        with client.open(image, prompt) as item:
            for text in generate():
                item.append(text)
            verdict = item.close()

    Leaving the `with` without `close` gives the item up. The server does so too where nothing is
    appended for 60 s.
    """

    def __init__(self, ticket: OpenTicket, client: object) -> None:
        # A client that is dropped is closed, so it is kept as long as this.
        self._ticket, self._client = ticket, client

    def __enter__(self) -> OpenItem:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None or not self._ticket.closed:
            self.cancel()

    def append(self, text: str | bytes, policy: PolicyTokens | None = None) -> None:
        """Sends more of the response. What is wrong with it comes as the item's verdict.

        Waits while the connection takes no more.

        Args:
            text: What follows; may end inside a character.
            policy: The policy's tokens of `text`, counted from its start: with every append of an
                item opened with `of_policy`, and with no other.

        Raises:
            ClosedError: The item was closed.
        """
        checked_append(self._ticket, text, policy).result()

    def close(self) -> Verdict:
        """Says that the response is whole, and waits for the verdict."""
        self._ticket.close()
        return self._ticket.wait()

    def cancel(self) -> None:
        """Gives the item up, if it has no verdict."""
        self._ticket.cancel()

    @property
    def tokens(self) -> Tokens:
        """What was scored so far."""
        return self._ticket.tokens()

    def __iter__(self) -> Iterator[Token]:
        """Tokens as they are scored, up to the verdict; for a thread beside the appending one."""
        changed: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._ticket.on_scores.append(lambda: changed.put(None))
        self._ticket.future.add_done_callback(lambda _: changed.put(None))
        read = 0
        while True:
            ended = self._ticket.future.done()
            tokens = self.tokens
            while read < len(tokens):
                yield tokens[read]
                read += 1
            if ended:
                return
            changed.get()


def checked_append(
    ticket: OpenTicket, text: str | bytes, policy: PolicyTokens | None
) -> Future[None]:
    """Sends a piece of a response."""
    if ticket.closed:
        raise ClosedError("the item was closed: nothing can be appended")
    data = encode_text(text, "text")
    if (policy is not None) != ticket.of_policy:
        wanted = "every" if ticket.of_policy else "no"
        raise InputError(
            f"policy: the item was opened with of_policy={ticket.of_policy}, so {wanted} append "
            "comes with policy tokens"
        )
    if policy is not None:
        policy.check(data)
    return ticket.append(data, policy)

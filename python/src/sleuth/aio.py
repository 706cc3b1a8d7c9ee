"""The client for asyncio: `sleuth.Client` with coroutines.

    async with sleuth.aio.Client("http://127.0.0.1:50051") as client:
        verdict = await client.score("scene.png", "There are two objects.")

Cancelling a task gives its items up. The stream is served by threads of its own, so that any event
loop, or several, may use one client.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sleuth import _calls
from sleuth._calls import Model, Tokenized
from sleuth._channel import Pem
from sleuth._ticket import OpenTicket, Ticket
from sleuth.client import Client as Blocking
from sleuth.client import ContextOptions, connected
from sleuth.correction import CorrectEvent, Correction, Corrector, Final, Guidance
from sleuth.errors import UnavailableError
from sleuth.images import Image, ImageLike
from sleuth.item import Item, encode
from sleuth.opening import checked_append
from sleuth.policy import PolicyTokens
from sleuth.settings import Settings
from sleuth.verdict import Token, Tokens, Verdict

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Client", "Correcting", "OpenItem"]

Items = Iterable[Item | Mapping[str, Any]] | AsyncIterable[Item | Mapping[str, Any]]


class Client:
    """As [`sleuth.Client`][sleuth.Client], with the same arguments and errors."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        ca: Pem = None,
        certificate: Pem = None,
        key: Pem = None,
        server_name: str | None = None,
        settings: Settings | None = None,
    ) -> None:
        self._blocking = Blocking(
            url,
            token=token,
            ca=ca,
            certificate=certificate,
            key=key,
            server_name=server_name,
            settings=settings,
        )
        self._session = self._blocking._session

    def __repr__(self) -> str:
        return f"sleuth.aio.{self._blocking!r}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as what it takes to connect, the token included: for processes of a trainer."""
        return connected, (Client, self._session.address, self._session.settings)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Gives up what is unfinished, and ends connection and threads."""
        await asyncio.to_thread(self._session.close)

    async def score(
        self,
        image: ImageLike,
        response: str | bytes | None = None,
        prompt: str | bytes | None = None,
        *,
        policy: PolicyTokens | None = None,
        **options: Unpack[ContextOptions],
    ) -> Verdict:
        """Scores one response; see `sleuth.Client.score`."""
        item = Item(await _encoded(image), response, prompt, policy, **options)
        return await _verdict(self._session.submit(encode(item)))

    async def score_many(self, items: Items) -> AsyncIterator[Verdict]:
        """Scores items as they come, and yields verdicts in their order.

        Args:
            items: Items or dicts with their fields, from an iterable or an async iterable; taken as
                others end.

        Yields:
            A verdict for each item.
        """
        window: deque[Ticket] = deque()
        try:
            async for index, item in _numbered(items):
                checked = Item.of(item, f"items[{index}]")
                checked = replace(checked, image=await _encoded(checked.image))
                window.append(self._session.submit(encode(checked)))
                if len(window) >= self._session.settings.max_in_flight:
                    yield await _verdict(window.popleft())
            while window:
                yield await _verdict(window.popleft())
        finally:
            for ticket in window:
                ticket.cancel()

    async def score_batch(self, items: Sequence[Item | Mapping[str, Any]]) -> list[Verdict]:
        """Scores a list; verdicts have the order of the items."""
        return [verdict async for verdict in self.score_many(items)]

    def open(
        self,
        image: ImageLike,
        prompt: str | bytes | None = None,
        *,
        of_policy: bool = False,
        **options: Unpack[ContextOptions],
    ) -> OpenItem:
        """Opens an item whose response is still being generated; see `sleuth.Client.open`."""
        item = Item(image, None, prompt, **options)
        ticket = self._session.open(encode(item, opened=True), of_policy=of_policy)
        return OpenItem(ticket, self)

    def correct(
        self,
        image: ImageLike,
        response: str | bytes,
        prompt: str | bytes | None = None,
        *,
        corrector: Corrector | None = None,
        guidance: Guidance | None = None,
        max_rounds: int = 1,
        max_candidates: int = 1,
        seed: int = 0,
        **options: Unpack[ContextOptions],
    ) -> Correcting:
        """Corrects a response; see `sleuth.Client.correct`."""
        return Correcting(
            self._blocking.correct(
                image,
                response,
                prompt,
                corrector=corrector,
                guidance=guidance,
                max_rounds=max_rounds,
                max_candidates=max_candidates,
                seed=seed,
                **options,
            )
        )

    async def put_image(self, image: ImageLike) -> Image:
        """Puts an image, unless the server holds it; see `sleuth.Client.put_image`."""
        return await asyncio.to_thread(self._blocking.put_image, image)

    async def has_images(self, images: Sequence[Image]) -> list[bool]:
        """Which images the server holds now: a hint."""
        return await asyncio.to_thread(_calls.has_images, self._session, images)

    async def get_model(self, adapter: str = "") -> Model:
        """Describes what answers for an adapter, and the limits."""
        return await asyncio.to_thread(_calls.get_model, self._session, adapter)

    async def tokenize(self, text: str | bytes, adapter: str = "") -> Tokenized:
        """Tokenises a text as a response is tokenised."""
        return await asyncio.to_thread(_calls.tokenize, self._session, text, adapter)

    async def healthy(self) -> bool:
        """Whether the server takes items; false where it cannot be reached."""
        return await asyncio.to_thread(_calls.healthy, self._session)


class OpenItem:
    """As [`sleuth.OpenItem`][sleuth.OpenItem]: `async with`, `await append`, `await close`."""

    def __init__(self, ticket: OpenTicket, client: Client) -> None:
        # A client that is dropped is closed, so it is kept as long as this.
        self._ticket, self._client = ticket, client

    async def __aenter__(self) -> OpenItem:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None or not self._ticket.closed:
            self.cancel()

    async def append(self, text: str | bytes, policy: PolicyTokens | None = None) -> None:
        """Sends more of the response; waits while the connection takes no more."""
        await asyncio.wrap_future(checked_append(self._ticket, text, policy))

    async def close(self) -> Verdict:
        """Says that the response is whole, and waits for the verdict."""
        self._ticket.close()
        return await _verdict(self._ticket)

    def cancel(self) -> None:
        """Gives the item up, if it has no verdict."""
        self._ticket.cancel()

    @property
    def tokens(self) -> Tokens:
        """What was scored so far."""
        return self._ticket.tokens()

    async def __aiter__(self) -> AsyncIterator[Token]:
        """Tokens as they are scored, up to the verdict."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def tell(_: object = None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(changed.set)

        self._ticket.on_scores.append(tell)
        self._ticket.future.add_done_callback(tell)
        read = 0
        while True:
            changed.clear()
            ended = self._ticket.future.done()
            tokens = self.tokens
            while read < len(tokens):
                yield tokens[read]
                read += 1
            if ended:
                return
            await changed.wait()


class Correcting:
    """A correction under way: an async iterator of events, of which the last is `Final`."""

    def __init__(self, correction: Correction) -> None:
        self._correction = correction

    async def __aiter__(self) -> AsyncIterator[CorrectEvent]:
        """What happens; leaving the loop gives the item up."""
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[CorrectEvent | BaseException | None] = asyncio.Queue()

        def tell(event: CorrectEvent | BaseException | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(events.put_nowait, event)

        def read() -> None:
            try:
                for event in self._correction:
                    tell(event)
                tell(None)
            except BaseException as error:
                tell(error)

        threading.Thread(target=read, name="sleuth-correction", daemon=True).start()
        try:
            while (event := await events.get()) is not None:
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            self._correction.close()

    async def final(self) -> Final:
        """Waits for the end, whatever happens before it."""
        async for event in self:
            if isinstance(event, Final):
                return event
        raise UnavailableError("the correction ended without its end")


async def _encoded(image: ImageLike) -> Image:
    """Reads, encodes and hashes an image in a thread: a large one would hold the loop up."""
    return image if isinstance(image, Image) else await asyncio.to_thread(Image.of, image)


async def _verdict(ticket: Ticket) -> Verdict:
    # Where the task is cancelled, `wrap_future` cancels the ticket's future, which gives it up.
    return await asyncio.wrap_future(ticket.future)


async def _numbered(items: Items) -> AsyncIterator[tuple[int, Item | Mapping[str, Any]]]:
    index = 0
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield index, item
            index += 1
    else:
        for item in items:
            yield index, item
            index += 1

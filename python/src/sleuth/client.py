"""The client for ordinary code; `sleuth.aio` has the one for asyncio."""

from __future__ import annotations

import queue
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from sleuth import _calls
from sleuth._calls import Model, Tokenized
from sleuth._channel import Address, Pem
from sleuth._session import Session
from sleuth._ticket import Ticket
from sleuth.correction import Correction, Corrector, Guidance, encode_correction
from sleuth.images import Image, ImageLike
from sleuth.item import Aggregation, Group, Item, Realignment, SentenceRule, encode
from sleuth.opening import OpenItem
from sleuth.policy import PolicyTokens
from sleuth.settings import Settings
from sleuth.verdict import Verdict

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Client"]

T = TypeVar("T")


class ContextOptions(TypedDict, total=False):
    """What an item may have beside image, prompt and response; see [`Item`][sleuth.Item]."""

    group: Group | str | None
    timeout: float | None
    priority: int
    adapter: str
    required_version: str
    idempotency_key: str | None
    aggregation: Aggregation | None
    threshold: float | None
    sentences: SentenceRule | None
    realignment: Realignment | None


class Client:
    """A connection to a server or router. Threads may share it.

    Items go over one stream, many at once. What may succeed later is tried again under the item's
    idempotency key, so that nothing is scored twice; a lost connection is such a case.

    Args:
        url: Such as `http://127.0.0.1:50051` or `https://rewards.internal:50051`. Nothing is
            connected before the first call.
        token: Sent with every call; over `http` anybody on the way can read it.
        ca: Authorities that vouch for the server, as PEM bytes or a path; None for the system's.
        certificate: The client's own certificate, where the server asks for one.
        key: Its private key.
        server_name: The name in the server's certificate, where it is another than the URL's host.
        settings: Limits, timeouts and retries.

    Raises:
        InputError: The URL or the token cannot be used.
    """

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
        address = Address(url, token, ca, certificate, key, server_name)
        self._session = Session(address, settings or Settings())
        # Threads hold the session, not this: whoever drops it has closed it. See `close_all` for
        # the end of the process.
        weakref.finalize(self, self._session.close).atexit = False

    def __repr__(self) -> str:
        return f"Client({self._session.address.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as what it takes to connect, the token included: for processes of a trainer."""
        return connected, (Client, self._session.address, self._session.settings)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives up what is unfinished, and ends connection and threads."""
        self._session.close()

    def score(
        self,
        image: ImageLike,
        response: str | bytes | None = None,
        prompt: str | bytes | None = None,
        *,
        policy: PolicyTokens | None = None,
        **options: Unpack[ContextOptions],
    ) -> Verdict:
        """Scores one response and waits for its verdict.

        Args:
            image: An `Image`, an encoded file as bytes, a path, a PIL image, or a numpy array of
                uint8 of shape (H, W) or (H, W, 3).
            response: The response; may be left out where `policy` has it.
            prompt: The prompt; None for the model's own, empty for none.
            policy: The policy's own tokens: `verdict.tokens` then has a row for each of them.
            **options: Other fields of an `Item`.

        Returns:
            A valid verdict, or an invalid one with its reason.

        Raises:
            TypeError: A field has the wrong type.
            InputError: A field has a value that cannot be sent.
            RefusedError: The server does not let this client score.
            UnavailableError: The server cannot be reached.
            DeadlineError: `timeout` passed without a verdict.
        """
        item = Item(image, response, prompt, policy, **options)
        return self._session.submit(encode(item)).wait()

    def score_many(self, items: Iterable[Item | Mapping[str, Any]]) -> Iterator[Verdict]:
        """Scores items as they come, and yields verdicts in their order.

        Items are taken from `items` as others end: at most `max_in_flight` are on their way.
        Leaving the loop gives up what is unfinished.

        Args:
            items: Items, or dicts with their fields.

        Yields:
            A verdict for each item.

        Raises:
            As `score`; the rest is given up then.
        """
        window: deque[Ticket] = deque()
        try:
            for index, item in enumerate(items):
                window.append(self._session.submit(encode(Item.of(item, f"items[{index}]"))))
                if len(window) >= self._session.settings.max_in_flight:
                    yield window.popleft().wait()
            while window:
                yield window.popleft().wait()
        finally:
            for ticket in window:
                ticket.cancel()

    def as_scored(self, items: Iterable[Item | Mapping[str, Any]]) -> Iterator[tuple[int, Verdict]]:
        """Scores items as they come, and yields verdicts as soon as they are there.

        Args:
            items: As for `score_many`.

        Yields:
            An item's place in `items`, from 0, and its verdict.
        """
        ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        running: dict[int, Ticket] = {}
        try:
            for index, item in enumerate(items):
                ticket = self._session.submit(encode(Item.of(item, f"items[{index}]")))
                running[index] = ticket
                ticket.future.add_done_callback(lambda _, index=index: ended.put(index))  # type: ignore[misc]
                while running and (
                    len(running) >= self._session.settings.max_in_flight or not ended.empty()
                ):
                    done = ended.get()
                    yield done, running.pop(done).wait()
            while running:
                done = ended.get()
                yield done, running.pop(done).wait()
        finally:
            for ticket in running.values():
                ticket.cancel()

    def score_batch(self, items: Sequence[Item | Mapping[str, Any]]) -> list[Verdict]:
        """Scores a list and waits for all of it; a bad item spoils no other.

        Returns:
            Verdicts, in the order of the items.
        """
        return list(self.score_many(items))

    def open(
        self,
        image: ImageLike,
        prompt: str | bytes | None = None,
        *,
        of_policy: bool = False,
        **options: Unpack[ContextOptions],
    ) -> OpenItem:
        """Opens an item whose response is still being generated; see `OpenItem`.

        Args:
            image: As for `score`.
            prompt: As for `score`.
            of_policy: Whether every append comes with policy tokens, and rewards are wanted for
                those.
            **options: Other fields of an `Item`.
        """
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
    ) -> Correction:
        """Scores a response, has repairs proposed, and keeps what is proven to be better.

        Args:
            image: As for `score`.
            response: The response.
            prompt: As for `score`.
            corrector: Who proposes repairs; None for `builtin`.
            guidance: What the corrector is told; None for `token`.
            max_rounds: 1 to 8.
            max_candidates: Repairs in a round, 1 to 16.
            seed: Of what a corrector samples.
            **options: Other fields of an `Item`.

        Returns:
            An iterator of events; `.final()` waits for the end.
        """
        encoded = encode(Item(image, response, prompt, **options))
        wire = encode_correction(encoded, corrector, guidance, max_rounds, max_candidates, seed)
        return Correction(self._session, encoded, wire, self)

    def put_image(self, image: ImageLike) -> Image:
        """Puts an image, unless the server holds it. Scoring does so by itself.

        Returns:
            The image, encoded and hashed: to be given to many calls.
        """
        return _calls.put_image(self._session, Image.of(image))

    def has_images(self, images: Sequence[Image]) -> list[bool]:
        """Which images the server holds now: a hint."""
        return _calls.has_images(self._session, images)

    def get_model(self, adapter: str = "") -> Model:
        """Describes what answers for an adapter, and the limits.

        Raises:
            RefusedError: No adapter of this name is loaded.
        """
        return _calls.get_model(self._session, adapter)

    def tokenize(self, text: str | bytes, adapter: str = "") -> Tokenized:
        """Tokenises a text as a response is tokenised."""
        return _calls.tokenize(self._session, text, adapter)

    def healthy(self) -> bool:
        """Whether the server takes items; false where it cannot be reached."""
        return _calls.healthy(self._session)


def connected(kind: Callable[..., T], address: Address, settings: Settings) -> T:
    """A client of the same server, in another process."""
    return kind(
        address.url,
        token=address.token,
        ca=address.ca,
        certificate=address.certificate,
        key=address.key,
        server_name=address.server_name,
        settings=settings,
    )

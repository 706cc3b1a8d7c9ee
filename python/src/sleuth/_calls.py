"""Calls that are no items: about the model, texts and images."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from sleuth import _statuses
from sleuth._replies import UnreadableError
from sleuth.errors import InputError, RefusedError, SleuthError, UnavailableError
from sleuth.images import Image
from sleuth.item import text as encode_text
from sleuth.v1 import reward_service_pb2 as rpb

if TYPE_CHECKING:
    from sleuth._session import Session

T = TypeVar("T")
MAX_DIGESTS = 1024
# `grpc.health.v1`, by hand: its package would tie this one to a narrow range of protobuf.
HEALTH = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"


@dataclass(frozen=True)
class Model:
    """What is loaded, and the limits.

    Attributes:
        name: The model folder's name.
        version: Digest over config, weights, tokenizer, adapter and types.
        architecture: Such as `PaliGemmaForConditionalGeneration`.
        adapter: The adapter's name; None where none is loaded.
        prompt: Used when an item has none.
        threshold: Used when an item has none.
        takes_open_items: Whether responses may be scored while they are generated.
        max_prompt_tokens: Longest prompt.
        max_response_tokens: Longest response.
        max_item_bytes: Largest item.
        max_unfinished_items: Most unfinished items the server reads from one stream.
        max_timeout: Longest time an item may take, in seconds.
    """

    name: str
    version: str
    architecture: str
    adapter: str | None
    prompt: str
    threshold: float
    takes_open_items: bool
    max_prompt_tokens: int
    max_response_tokens: int
    max_item_bytes: int
    max_unfinished_items: int
    max_timeout: float


@dataclass(frozen=True)
class Tokenized:
    """A text as tokens of the reward model, in columns of equal length.

    Attributes:
        id: Token ids.
        start: First byte of each token.
        end: One past the last byte of each token.
        version: The version whose tokenizer this is.
    """

    id: tuple[int, ...]
    start: tuple[int, ...]
    end: tuple[int, ...]
    version: str


def get_model(session: Session, adapter: str) -> Model:
    """Describes what answers for an adapter."""
    reply = again(session, session.stub.GetModel, rpb.GetModelRequest(adapter=adapter))
    return Model(
        name=reply.name,
        version=reply.version,
        architecture=reply.architecture,
        adapter=reply.adapter if reply.HasField("adapter") else None,
        prompt=reply.prompt,
        threshold=reply.threshold,
        takes_open_items=reply.suffix_attention == rpb.SUFFIX_ATTENTION_CAUSAL,
        max_prompt_tokens=reply.max_prompt_tokens,
        max_response_tokens=reply.max_response_tokens,
        max_item_bytes=reply.max_item_bytes,
        max_unfinished_items=reply.max_unfinished_items,
        max_timeout=reply.max_timeout.ToNanoseconds() / 1e9,
    )


def tokenize(session: Session, text: str | bytes, adapter: str) -> Tokenized:
    """Tokenises a text as a response is tokenised."""
    request = rpb.TokenizeRequest(text=encode_text(text, "text"), adapter=adapter)
    reply = again(session, session.stub.Tokenize, request)
    return Tokenized(tuple(reply.id), tuple(reply.start), tuple(reply.end), reply.version)


def has_images(session: Session, images: Sequence[Image]) -> list[bool]:
    """Which images the server holds."""
    if len(images) > MAX_DIGESTS:
        raise InputError(f"images: at most {MAX_DIGESTS} in one call, not {len(images)}")
    request = rpb.HasImagesRequest(blake3=[image.blake3 for image in images])
    reply = again(session, session.stub.HasImages, request)
    if len(reply.present) != len(images):
        raise UnreadableError(f"asked for {len(images)} images, told of {len(reply.present)}")
    return list(reply.present)


def put_image(session: Session, image: Image) -> Image:
    """Puts an image, unless the server holds it."""
    retry(session, lambda: session.images.ensure(image).result(session.settings.call_timeout))
    return image


def healthy(session: Session) -> bool:
    """Whether the server serves; false where it cannot be reached."""
    check = session.channel.unary_unary(
        HEALTH, request_serializer=bytes, response_deserializer=bytes
    )
    try:
        return check(b"", timeout=session.settings.connect_timeout) == SERVING
    except grpc.RpcError:
        return False


def again(session: Session, call: Callable[..., T], request: Any) -> T:
    """A call, tried again as the settings say.

    Raises:
        RefusedError: The server refuses it.
        UnavailableError: The server cannot be reached.
    """

    def once() -> T:
        try:
            return call(
                request,
                metadata=session.address.metadata,
                timeout=session.settings.call_timeout,
            )
        except grpc.RpcError as error:
            raise _statuses.error_of(error, session.address.url) from None

    return retry(session, once)


def retry(session: Session, once: Callable[[], T]) -> T:
    """Tries again what may succeed later."""
    attempt, began = 1, time.monotonic()
    while True:
        try:
            return once()
        except SleuthError as error:
            refusal = error.refusal if isinstance(error, RefusedError) else None
            may = refusal.retryable if refusal else isinstance(error, UnavailableError)
            asked = refusal.retry_after if refusal else None
            spent = time.monotonic() - began
            pause = session.settings.retry.pause(attempt, asked, spent) if may else None
            if pause is None:
                raise
        time.sleep(pause)
        attempt += 1

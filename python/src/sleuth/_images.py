"""Images that a server holds for this client."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import grpc

from sleuth import _statuses
from sleuth._channel import Address
from sleuth.errors import ClosedError
from sleuth.images import Image
from sleuth.settings import Settings
from sleuth.v1 import reward_service_pb2 as rpb
from sleuth.v1.reward_service_pb2_grpc import RewardServiceStub

CHUNK_BYTES = 1 << 20
# Below this, sending the file costs no more than asking for it.
ASK_BYTES = 256 << 10
# Digests remembered as held; the oldest are asked for again.
MAX_KNOWN = 1 << 16


class ImageStore:
    """Puts each image once, by its digest, however many items wait for it."""

    def __init__(self, stub: RewardServiceStub, address: Address, settings: Settings) -> None:
        self._stub, self._address, self._settings = stub, address, settings
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._under_way: dict[bytes, Future[None]] = {}

    def ensure(self, image: Image) -> Future[None]:
        """Done when the server holds the image, as far as is known."""
        with self._lock:
            if image.data is None or image.blake3 in self._known:
                done: Future[None] = Future()
                done.set_result(None)
                return done
            if (under_way := self._under_way.get(image.blake3)) is not None:
                return under_way
            put: Future[None] = Future()
            self._under_way[image.blake3] = put
        if len(image.data) >= ASK_BYTES:
            self._ask(image, image.data, put)
        else:
            self._put(image, image.data, put)
        return put

    def forget(self, digest: bytes) -> None:
        """The server holds it no more."""
        with self._lock:
            self._known.pop(digest, None)

    def _ask(self, image: Image, data: bytes, put: Future[None]) -> None:
        call = self._stub.HasImages.future(
            rpb.HasImagesRequest(blake3=[image.blake3]),
            metadata=self._address.metadata,
            timeout=self._settings.call_timeout,
        )

        def answered(call: grpc.Future[rpb.HasImagesResponse]) -> None:
            # Where asking fails, putting fails in the same way, and says so.
            if _fault(call) is None and list(call.result().present) == [True]:
                self._finish(image, put, None)
            else:
                self._put(image, data, put)

        call.add_done_callback(answered)

    def _put(self, image: Image, data: bytes, put: Future[None]) -> None:
        call = self._stub.PutImage.future(
            messages(image.blake3, data),
            metadata=self._address.metadata,
            timeout=self._settings.call_timeout,
        )

        def answered(call: grpc.Future[rpb.PutImageResponse]) -> None:
            error = _fault(call)
            if isinstance(error, grpc.RpcError):
                error = _statuses.error_of(error, self._address.url)
            self._finish(image, put, error)

        call.add_done_callback(answered)

    def _finish(self, image: Image, put: Future[None], error: BaseException | None) -> None:
        with self._lock:
            self._under_way.pop(image.blake3, None)
            if error is None:
                self._known[image.blake3] = None
                while len(self._known) > MAX_KNOWN:
                    self._known.popitem(last=False)
        if error is None:
            put.set_result(None)
        else:
            put.set_exception(error)


def _fault(call: grpc.Future[Any]) -> BaseException | None:
    try:
        return call.exception()
    except grpc.FutureCancelledError:
        return ClosedError("the client was closed")


def messages(digest: bytes, data: bytes) -> Iterator[rpb.PutImageRequest]:
    """A header, then the file in chunks."""
    header = rpb.ImageHeader(blake3=digest, size_bytes=len(data))
    yield rpb.PutImageRequest(header=header)
    for at in range(0, len(data), CHUNK_BYTES):
        yield rpb.PutImageRequest(chunk=data[at : at + CHUNK_BYTES])

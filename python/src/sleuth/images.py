"""Images as they are sent: encoded files, named by their digest."""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any, Union

from blake3 import blake3

from sleuth.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image as PilImage

__all__ = ["Image", "ImageLike"]

ImageLike = Union["Image", bytes, bytearray, memoryview, str, "os.PathLike[str]", Any]
"""An `Image`, an encoded file as bytes, a path, a PIL image or a numpy array."""

# Channels of an array, and PNG's number for them.
PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
# What PNG holds without loss.
PIL_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})


@dataclass(frozen=True)
class Image:
    """An encoded image: PNG, JPEG or WebP.

    Making one by hand encodes and hashes an image once for many items; whatever a client takes as
    an image, it takes an `Image` too.

    Attributes:
        blake3: BLAKE3 of the file, 32 bytes.
        data: The file; None for one that the server holds already.
    """

    blake3: bytes
    data: bytes | None = field(default=None, repr=False)

    @classmethod
    def of(cls, image: ImageLike, name: str = "image") -> Image:
        """Reads or encodes an image.

        Args:
            image: An `Image`, an encoded file as bytes, a path, a PIL image, or a numpy array of
                shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) and dtype uint8. Pixels are encoded
                as PNG, without loss, as they stand: a PIL image's EXIF orientation is not applied.
            name: The field, for errors.

        Returns:
            The encoded image. Alpha goes along; the server drops it.

        Raises:
            TypeError: It is none of these.
            InputError: Its shape, dtype or mode cannot be encoded without loss, or it is empty.
            OSError: The path cannot be read.
        """
        if isinstance(image, Image):
            return image
        if isinstance(image, (bytes, bytearray, memoryview)):
            return cls._of_file(bytes(image), name)
        if isinstance(image, (str, os.PathLike)):
            with open(image, "rb") as file:
                return cls._of_file(file.read(), name)
        if _is_pil(image):
            return cls._of_file(_png_of_pil(image, name), name)
        if type(image).__module__ == "numpy" and hasattr(image, "dtype"):
            return cls._of_file(_png_of_array(image, name), name)
        raise TypeError(
            f"{name} must be a path, an encoded file as bytes, a PIL image or a numpy array of "
            f"uint8, not {type(image).__module__}.{type(image).__qualname__}"
        )

    @classmethod
    def known(cls, digest: bytes) -> Image:
        """An image that the server holds, by the BLAKE3 of its file, 32 bytes."""
        if len(digest) != 32:
            raise InputError(f"digest: a BLAKE3 has 32 bytes, not {len(digest)}")
        return cls(bytes(digest))

    @classmethod
    def _of_file(cls, data: bytes, name: str) -> Image:
        if not data:
            raise InputError(f"{name}: the file is empty; give a whole PNG, JPEG or WebP file")
        return cls(blake3(data).digest(), data)


def _is_pil(image: object) -> bool:
    return any(base.__module__ == "PIL.Image" for base in type(image).__mro__)


def _png_of_pil(image: PilImage, name: str) -> bytes:
    if image.mode not in PIL_MODES:
        raise InputError(
            f'{name}: PNG does not hold mode {image.mode!r} without loss; give image.convert("RGB")'
        )
    file = BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _png_of_array(array: NDArray[np.uint8], name: str) -> bytes:
    if array.dtype.name != "uint8":
        raise InputError(
            f"{name}: an array must be uint8, not {array.dtype.name}; for values of 0 to 1 give "
            '(array * 255).round().astype("uint8")'
        )
    channels = 1 if array.ndim == 2 else (array.shape[-1] if array.ndim == 3 else 0)
    if channels not in PNG_COLOUR_TYPES or 0 in array.shape:
        raise InputError(
            f"{name}: an array must have the shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), "
            f"not {tuple(array.shape)}; for (3, H, W) give array.transpose(1, 2, 0)"
        )
    height, width = array.shape[:2]
    row = width * channels
    pixels = array.tobytes()
    lines = b"".join(b"\0" + pixels[y * row : (y + 1) * row] for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, PNG_COLOUR_TYPES[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 1)), (b"IEND", b""))
    )

"""What trainers' batches hold: images and prompts in their many forms, and groups."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from sleuth.errors import InputError
from sleuth.images import Image
from sleuth.item import Group
from sleuth.settings import Retry, Settings
from sleuth.verdict import Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IMAGE_COLUMNS = ("image", "images")
# A step waits so many seconds for a server that restarts, rather than go on without rewards.
PATIENCE = 300.0


def patient(seconds: float) -> Settings:
    """Settings of a client that waits so long for a server, and no shorter."""
    return Settings(retry=Retry(attempts=10_000, budget=seconds))


def of_one_length(**columns: Sequence[Any]) -> int:
    """The length of columns that belong together.

    Raises:
        InputError: They differ; names them.
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise InputError(f"a batch must have one of each per response: {told}")
    return next(iter(lengths.values()), 0)


def image_of(value: Any, name: str) -> Image:
    """One image of a data set: as `Image.of` takes it, in a list of one, or as datasets stores it.

    Raises:
        InputError: There is none, or there are several.
    """
    if value is None:
        raise InputError(f"{name}: there is no image, and rewards are about one")
    if isinstance(value, (list, tuple)):
        if len(value) != 1:
            raise InputError(f"{name}: a response is judged by one image, not by {len(value)}")
        return image_of(value[0], name)
    if isinstance(value, Mapping):
        keys = [k for k in ("bytes", "image", "path") if value.get(k) is not None]
        if not keys:
            raise InputError(f"{name}: has neither bytes nor a path, but {sorted(value)}")
        return image_of(value[keys[0]], name)
    return Image.of(value, name)


class ImageColumn:
    """Images of one batch: each object is encoded once, however often it occurs."""

    def __init__(self) -> None:
        # The objects are kept beside, so that no other one gets their id.
        self._encoded: dict[int, tuple[object, Image]] = {}

    def of(self, value: Any, name: str) -> Image:
        """As `image_of`."""
        if isinstance(value, (list, tuple)) and len(value) == 1:
            value = value[0]
        if id(value) not in self._encoded:
            self._encoded[id(value)] = (value, image_of(value, name))
        return self._encoded[id(value)][1]


def text_of(prompt: Any) -> str | None:
    """The text that a prompt asks: a string as it is; of messages, the last one of the user."""
    if prompt is None or isinstance(prompt, str):
        return prompt
    for message in reversed(list(prompt)):
        if message.get("role") == "user":
            return _text_parts(message.get("content")).replace("<image>", "").strip()
    return None


def image_in(prompt: Any) -> Any:
    """The image within messages, where they hold one; else None."""
    if isinstance(prompt, str) or prompt is None:
        return None
    found = [
        part
        for message in prompt
        if not isinstance(message.get("content"), str)
        for part in message.get("content") or ()
        if part.get("type") == "image" and len(part) > 1
    ]
    return [part.get("image", part) for part in found] or None


def completion_text(completion: Any) -> str:
    """A completion's text: a string as it is, of messages the contents of the assistant's."""
    if isinstance(completion, str):
        return completion
    return "".join(
        content
        if isinstance(content, str)
        else text_of([{"role": "user", "content": content}]) or ""
        for content in (m.get("content") for m in completion if m.get("role") == "assistant")
    )


def _text_parts(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content or () if part.get("type") == "text")


def groups(
    images: Sequence[Image], prompts: Sequence[str | None], scope: str | None
) -> list[Group]:
    """Groups of equal image and prompt.

    Args:
        images: Of each response.
        prompts: Of each response.
        scope: Tells one step from another; the same on all ranks. None: this call alone.
    """
    scope = uuid.uuid4().hex if scope is None else scope
    names = [
        blake3(image.blake3 + (prompt or "").encode("utf-8", "replace")).hexdigest(length=16)
        for image, prompt in zip(images, prompts, strict=True)
    ]
    sizes = {name: names.count(name) for name in set(names)}
    return [Group(f"{scope}-{name}", sizes[name]) for name in names]


def token_rewards(verdicts: Sequence[Verdict], length: int | None = None) -> NDArray[np.float32]:
    """Rewards of tokens as one array.

    Args:
        verdicts: B of them; of items with policy tokens, if the columns are to be the policy's.
        length: T, the number of columns; None for that of the longest.

    Returns:
        An array of shape (B, T) and dtype float32, 0 to 1. NaN where there is no reward: behind a
        response's end, at tokens without bytes such as `<eos>`, and all along an invalid verdict.

    Raises:
        InputError: A response has more tokens than `length`.
    """
    import numpy as np

    rows = [v.tokens.reward if v.valid else np.empty(0, np.float32) for v in verdicts]
    longest = max(map(len, rows), default=0)
    if length is not None and longest > length:
        raise InputError(f"length: a response has {longest} tokens, which do not fit in {length}")
    table = np.full((len(rows), longest if length is None else length), np.nan, np.float32)
    for row, rewards in zip(table, rows, strict=True):
        row[: len(rewards)] = rewards
    return table

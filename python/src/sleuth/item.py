"""Items, and how they are written on the wire."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from google.protobuf.duration_pb2 import Duration

from sleuth import _trace
from sleuth.errors import InputError
from sleuth.images import Image, ImageLike
from sleuth.policy import PolicyTokens
from sleuth.v1 import types_pb2 as pb

__all__ = ["Aggregation", "Group", "Item", "Realignment", "SentenceRule"]

Aggregation = Literal[
    "mean_log", "product_bits", "product", "min", "mean", "log_sum", "count_below"
]
"""How token rewards become one number; see `Aggregation` in proto/sleuth/v1/types.proto."""
SentenceRule = Literal["period", "unicode"]
"""How a response is cut into sentences."""
Realignment = Literal["min", "mean", "product"]
"""How a policy token takes its reward from the reward model's tokens that overlap its bytes."""

# The wire's limits; the server would refuse the item all the same.
MAX_NAME_BYTES = 256
# Far over what servers take, and under the size of a message that would end the stream.
MAX_TEXT_BYTES = 4 << 20


@dataclass(frozen=True)
class Group:
    """The rollouts of one prompt: they are placed together, and one version scores them all.

    Attributes:
        id: 1 to 256 bytes.
        size: Members that will be sent; 0 if unknown.
        expected_response_tokens: Tokens expected per response; 0 if unknown.
    """

    id: str
    size: int = 0
    expected_response_tokens: int = 0


@dataclass(frozen=True)
class Item:
    """One image, one prompt, one response.

    Attributes:
        image: An `Image`, an encoded file as bytes, a path, a PIL image, or a numpy array of uint8.
        response: The response; None where `policy` has it, and for an open item.
        prompt: The prompt; None for the model's own, empty for none.
        policy: The policy's own tokens of the response: rewards come back per policy token.
        group: The rollouts this item belongs to, or their id.
        timeout: Seconds until there must be a verdict, however often it is sent; None for as long
            as the server allows.
        priority: Higher goes first among a tenant's items.
        adapter: The adapter to score with; empty for the model's default.
        required_version: Only this version may answer; empty for any.
        idempotency_key: Joins repeated requests for the same work, at most 256 bytes; None for one
            of its own, so that a resend is not scored twice; empty for none.
        aggregation: From tokens to sentences and to the response; None for `mean_log`.
        threshold: A token is flagged where its reward is not above this, 0 to 1; None for the
            model's own.
        sentences: How sentences are cut; None for `period`.
        realignment: From the reward model's tokens to the policy's; None for `min`.
    """

    image: ImageLike
    response: str | bytes | None = None
    prompt: str | bytes | None = None
    policy: PolicyTokens | None = None
    group: Group | str | None = None
    timeout: float | None = None
    priority: int = 0
    adapter: str = ""
    required_version: str = ""
    idempotency_key: str | None = None
    aggregation: Aggregation | None = None
    threshold: float | None = None
    sentences: SentenceRule | None = None
    realignment: Realignment | None = None

    @classmethod
    def of(cls, item: Item | Mapping[str, Any], name: str = "item") -> Item:
        """An item, or a mapping with its fields."""
        if isinstance(item, Item):
            return item
        if not isinstance(item, Mapping):
            raise TypeError(f"{name} must be an Item or a dict, not {type(item).__name__}")
        known = [f.name for f in fields(cls)]
        if unknown := [key for key in item if key not in known]:
            raise InputError(f"{name}: no field {unknown[0]!r}; there are {', '.join(known)}")
        if "image" not in item:
            raise InputError(f"{name}: has no image")
        return cls(**item)


@dataclass(frozen=True)
class Encoded:
    """An item, checked, as it is sent."""

    context: pb.Context
    image: Image
    response: bytes
    policy: pb.PolicyTokens | None
    timeout: float | None


def encode(item: Item, *, opened: bool = False) -> Encoded:
    """Checks an item and writes it down.

    Raises:
        TypeError: A field has the wrong type.
        InputError: A field has a value that cannot be sent.
        TokenizerMismatchError: The policy's tokens do not spell the response.
    """
    response = b"" if opened else _response(item)
    context = pb.Context(
        idempotency_key=_key(item.idempotency_key),
        priority=_whole(item.priority, "priority"),
        adapter=_name(item.adapter, "adapter"),
        required_version=_name(item.required_version, "required_version"),
        options=_options(item),
    )
    context.traceparent, context.tracestate = _trace.current()
    if item.prompt is not None:
        context.prompt = text(item.prompt, "prompt")
    if item.group is not None:
        context.group.CopyFrom(_group(item.group))
    policy = None
    if item.policy is not None and not opened:
        policy = pb.PolicyTokens(byte_end=item.policy.byte_end)
    return Encoded(context, Image.of(item.image), response, policy, _seconds(item.timeout))


def duration(seconds: float) -> Duration:
    """Seconds on the wire."""
    whole = Duration()
    whole.FromNanoseconds(max(int(seconds * 1e9), 0))
    return whole


def text(value: object, name: str) -> bytes:
    """A text as UTF-8; bytes as they are."""
    if isinstance(value, str):
        try:
            value = value.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"{name}: character {error.start} is half of a surrogate pair and no UTF-8; decode "
                'with errors="replace"'
            ) from None
    if not isinstance(value, (bytes, bytearray)):
        raise TypeError(f"{name} must be str or bytes, not {type(value).__name__}")
    if len(value) > MAX_TEXT_BYTES:
        raise InputError(f"{name}: {len(value)} bytes; servers take 64 KiB, so cut it before")
    return bytes(value)


def choice(value: object, name: str, enum: Any, prefix: str) -> Any:
    """The number of a named choice; None is the server's default."""
    if value is None:
        return 0
    names = [n.removeprefix(prefix).lower() for n in enum.keys() if not n.endswith("UNSPECIFIED")]  # noqa: SIM118
    if value not in names:
        raise InputError(f"{name}: {value!r} is none of {', '.join(names)}")
    return enum.Value(prefix + str(value).upper())


def _response(item: Item) -> bytes:
    if item.policy is not None and not isinstance(item.policy, PolicyTokens):
        raise TypeError(
            f"policy must be PolicyTokens, not {type(item.policy).__name__}; make them with "
            "PolicyTokens.from_ids(tokenizer, ids)"
        )
    if item.response is None:
        if item.policy is None:
            raise InputError("response: give one, or policy tokens that spell it")
        return item.policy.text
    response = text(item.response, "response")
    if item.policy is not None:
        item.policy.check(response)
    return response


def _options(item: Item) -> pb.Options:
    options = pb.Options()
    if item.aggregation is not None:
        options.aggregation = choice(
            item.aggregation, "aggregation", pb.Aggregation, "AGGREGATION_"
        )
    if item.threshold is not None:
        if not isinstance(item.threshold, (int, float)) or not 0 <= item.threshold <= 1:
            raise InputError(f"threshold: a number from 0 to 1, not {item.threshold!r}")
        options.threshold = item.threshold
    options.sentences = choice(item.sentences, "sentences", pb.SentenceRule, "SENTENCE_RULE_")
    options.realignment = choice(item.realignment, "realignment", pb.Realignment, "REALIGNMENT_")
    return options


def _group(group: Group | str) -> pb.Group:
    if isinstance(group, str):
        group = Group(group)
    if not isinstance(group, Group):
        raise TypeError(f"group must be a Group or its id, not {type(group).__name__}")
    if not group.id:
        raise InputError("group.id: at least one byte")
    expected = _whole(group.expected_response_tokens, "group.expected_response_tokens")
    return pb.Group(
        id=_name(group.id, "group.id"),
        size=_whole(group.size, "group.size"),
        expected_response_tokens=expected,
    )


def _key(key: str | None) -> str:
    return uuid.uuid4().hex if key is None else _name(key, "idempotency_key")


def _name(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be str, not {type(value).__name__}")
    if len(value.encode(errors="replace")) > MAX_NAME_BYTES:
        raise InputError(f"{name}: at most {MAX_NAME_BYTES} bytes")
    return value


def _whole(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be int, not {type(value).__name__}")
    if not -(1 << 31) <= value < 1 << 31 or (name != "priority" and value < 0):
        raise InputError(f"{name}: {value} is out of range")
    return value


def _seconds(value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"timeout must be seconds, not {type(value).__name__}")
    if not 0 <= value < 1e9:
        raise InputError(f"timeout: seconds from 0 on, not {value}")
    return float(value)

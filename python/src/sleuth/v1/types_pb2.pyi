from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Aggregation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AGGREGATION_UNSPECIFIED: _ClassVar[Aggregation]
    AGGREGATION_MEAN_LOG: _ClassVar[Aggregation]
    AGGREGATION_PRODUCT_BITS: _ClassVar[Aggregation]
    AGGREGATION_PRODUCT: _ClassVar[Aggregation]
    AGGREGATION_MIN: _ClassVar[Aggregation]
    AGGREGATION_MEAN: _ClassVar[Aggregation]
    AGGREGATION_LOG_SUM: _ClassVar[Aggregation]
    AGGREGATION_COUNT_BELOW: _ClassVar[Aggregation]

class SentenceRule(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SENTENCE_RULE_UNSPECIFIED: _ClassVar[SentenceRule]
    SENTENCE_RULE_PERIOD: _ClassVar[SentenceRule]
    SENTENCE_RULE_UNICODE: _ClassVar[SentenceRule]

class Realignment(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REALIGNMENT_UNSPECIFIED: _ClassVar[Realignment]
    REALIGNMENT_MIN: _ClassVar[Realignment]
    REALIGNMENT_MEAN: _ClassVar[Realignment]
    REALIGNMENT_PRODUCT: _ClassVar[Realignment]

class ErrorClass(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_CLASS_UNSPECIFIED: _ClassVar[ErrorClass]
    ERROR_CLASS_INVALID_REQUEST: _ClassVar[ErrorClass]
    ERROR_CLASS_TOO_LARGE: _ClassVar[ErrorClass]
    ERROR_CLASS_UNAUTHENTICATED: _ClassVar[ErrorClass]
    ERROR_CLASS_DENIED: _ClassVar[ErrorClass]
    ERROR_CLASS_UNKNOWN: _ClassVar[ErrorClass]
    ERROR_CLASS_QUOTA: _ClassVar[ErrorClass]
    ERROR_CLASS_OVERLOAD: _ClassVar[ErrorClass]
    ERROR_CLASS_DRAINING: _ClassVar[ErrorClass]
    ERROR_CLASS_DEADLINE: _ClassVar[ErrorClass]
    ERROR_CLASS_CANCELLED: _ClassVar[ErrorClass]
    ERROR_CLASS_VERSION_CHANGED: _ClassVar[ErrorClass]
    ERROR_CLASS_UNSUPPORTED: _ClassVar[ErrorClass]
    ERROR_CLASS_MODEL_FAILURE: _ClassVar[ErrorClass]

class NoticeKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NOTICE_KIND_UNSPECIFIED: _ClassVar[NoticeKind]
    NOTICE_KIND_DRAINING: _ClassVar[NoticeKind]
    NOTICE_KIND_CREDIT: _ClassVar[NoticeKind]
AGGREGATION_UNSPECIFIED: Aggregation
AGGREGATION_MEAN_LOG: Aggregation
AGGREGATION_PRODUCT_BITS: Aggregation
AGGREGATION_PRODUCT: Aggregation
AGGREGATION_MIN: Aggregation
AGGREGATION_MEAN: Aggregation
AGGREGATION_LOG_SUM: Aggregation
AGGREGATION_COUNT_BELOW: Aggregation
SENTENCE_RULE_UNSPECIFIED: SentenceRule
SENTENCE_RULE_PERIOD: SentenceRule
SENTENCE_RULE_UNICODE: SentenceRule
REALIGNMENT_UNSPECIFIED: Realignment
REALIGNMENT_MIN: Realignment
REALIGNMENT_MEAN: Realignment
REALIGNMENT_PRODUCT: Realignment
ERROR_CLASS_UNSPECIFIED: ErrorClass
ERROR_CLASS_INVALID_REQUEST: ErrorClass
ERROR_CLASS_TOO_LARGE: ErrorClass
ERROR_CLASS_UNAUTHENTICATED: ErrorClass
ERROR_CLASS_DENIED: ErrorClass
ERROR_CLASS_UNKNOWN: ErrorClass
ERROR_CLASS_QUOTA: ErrorClass
ERROR_CLASS_OVERLOAD: ErrorClass
ERROR_CLASS_DRAINING: ErrorClass
ERROR_CLASS_DEADLINE: ErrorClass
ERROR_CLASS_CANCELLED: ErrorClass
ERROR_CLASS_VERSION_CHANGED: ErrorClass
ERROR_CLASS_UNSUPPORTED: ErrorClass
ERROR_CLASS_MODEL_FAILURE: ErrorClass
NOTICE_KIND_UNSPECIFIED: NoticeKind
NOTICE_KIND_DRAINING: NoticeKind
NOTICE_KIND_CREDIT: NoticeKind

class Key(_message.Message):
    __slots__ = ("item_id", "attempt")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    attempt: int
    def __init__(self, item_id: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class Group(_message.Message):
    __slots__ = ("id", "size", "expected_response_tokens")
    ID_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_RESPONSE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    id: str
    size: int
    expected_response_tokens: int
    def __init__(self, id: _Optional[str] = ..., size: _Optional[int] = ..., expected_response_tokens: _Optional[int] = ...) -> None: ...

class Image(_message.Message):
    __slots__ = ("data", "blake3")
    DATA_FIELD_NUMBER: _ClassVar[int]
    BLAKE3_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    blake3: bytes
    def __init__(self, data: _Optional[bytes] = ..., blake3: _Optional[bytes] = ...) -> None: ...

class Options(_message.Message):
    __slots__ = ("aggregation", "threshold", "sentences", "realignment")
    AGGREGATION_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    SENTENCES_FIELD_NUMBER: _ClassVar[int]
    REALIGNMENT_FIELD_NUMBER: _ClassVar[int]
    aggregation: Aggregation
    threshold: float
    sentences: SentenceRule
    realignment: Realignment
    def __init__(self, aggregation: _Optional[_Union[Aggregation, str]] = ..., threshold: _Optional[float] = ..., sentences: _Optional[_Union[SentenceRule, str]] = ..., realignment: _Optional[_Union[Realignment, str]] = ...) -> None: ...

class Context(_message.Message):
    __slots__ = ("key", "group", "idempotency_key", "timeout", "priority", "adapter", "required_version", "traceparent", "tracestate", "image", "prompt", "options")
    KEY_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_VERSION_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    TRACESTATE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    key: Key
    group: Group
    idempotency_key: str
    timeout: _duration_pb2.Duration
    priority: int
    adapter: str
    required_version: str
    traceparent: str
    tracestate: str
    image: Image
    prompt: bytes
    options: Options
    def __init__(self, key: _Optional[_Union[Key, _Mapping]] = ..., group: _Optional[_Union[Group, _Mapping]] = ..., idempotency_key: _Optional[str] = ..., timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., priority: _Optional[int] = ..., adapter: _Optional[str] = ..., required_version: _Optional[str] = ..., traceparent: _Optional[str] = ..., tracestate: _Optional[str] = ..., image: _Optional[_Union[Image, _Mapping]] = ..., prompt: _Optional[bytes] = ..., options: _Optional[_Union[Options, _Mapping]] = ...) -> None: ...

class PolicyTokens(_message.Message):
    __slots__ = ("byte_end", "piece")
    BYTE_END_FIELD_NUMBER: _ClassVar[int]
    PIECE_FIELD_NUMBER: _ClassVar[int]
    byte_end: _containers.RepeatedScalarFieldContainer[int]
    piece: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, byte_end: _Optional[_Iterable[int]] = ..., piece: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Item(_message.Message):
    __slots__ = ("context", "response", "policy")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    context: Context
    response: bytes
    policy: PolicyTokens
    def __init__(self, context: _Optional[_Union[Context, _Mapping]] = ..., response: _Optional[bytes] = ..., policy: _Optional[_Union[PolicyTokens, _Mapping]] = ...) -> None: ...

class Span(_message.Message):
    __slots__ = ("start", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class Scores(_message.Message):
    __slots__ = ("key", "first_token", "start", "end", "reward", "logit", "coverage")
    KEY_FIELD_NUMBER: _ClassVar[int]
    FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    LOGIT_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    key: Key
    first_token: int
    start: _containers.RepeatedScalarFieldContainer[int]
    end: _containers.RepeatedScalarFieldContainer[int]
    reward: _containers.RepeatedScalarFieldContainer[float]
    logit: _containers.RepeatedScalarFieldContainer[float]
    coverage: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, key: _Optional[_Union[Key, _Mapping]] = ..., first_token: _Optional[int] = ..., start: _Optional[_Iterable[int]] = ..., end: _Optional[_Iterable[int]] = ..., reward: _Optional[_Iterable[float]] = ..., logit: _Optional[_Iterable[float]] = ..., coverage: _Optional[_Iterable[float]] = ...) -> None: ...

class Sentence(_message.Message):
    __slots__ = ("span", "reward")
    SPAN_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    span: Span
    reward: float
    def __init__(self, span: _Optional[_Union[Span, _Mapping]] = ..., reward: _Optional[float] = ...) -> None: ...

class Valid(_message.Message):
    __slots__ = ("reward", "aggregation", "sentences", "flagged", "tokens", "batch_invariant", "duplicates_joined")
    REWARD_FIELD_NUMBER: _ClassVar[int]
    AGGREGATION_FIELD_NUMBER: _ClassVar[int]
    SENTENCES_FIELD_NUMBER: _ClassVar[int]
    FLAGGED_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    BATCH_INVARIANT_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_JOINED_FIELD_NUMBER: _ClassVar[int]
    reward: float
    aggregation: Aggregation
    sentences: _containers.RepeatedCompositeFieldContainer[Sentence]
    flagged: _containers.RepeatedCompositeFieldContainer[Span]
    tokens: int
    batch_invariant: bool
    duplicates_joined: int
    def __init__(self, reward: _Optional[float] = ..., aggregation: _Optional[_Union[Aggregation, str]] = ..., sentences: _Optional[_Iterable[_Union[Sentence, _Mapping]]] = ..., flagged: _Optional[_Iterable[_Union[Span, _Mapping]]] = ..., tokens: _Optional[int] = ..., batch_invariant: bool = ..., duplicates_joined: _Optional[int] = ...) -> None: ...

class Invalid(_message.Message):
    __slots__ = ("reason", "retry_after", "retryable", "detail", "field")
    CLASS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    reason: str
    retry_after: _duration_pb2.Duration
    retryable: bool
    detail: str
    field: str
    def __init__(self, reason: _Optional[str] = ..., retry_after: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., retryable: bool = ..., detail: _Optional[str] = ..., field: _Optional[str] = ..., **kwargs) -> None: ...

class Timing(_message.Message):
    __slots__ = ("prepare_micros", "queue_micros", "compute_micros")
    PREPARE_MICROS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MICROS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_MICROS_FIELD_NUMBER: _ClassVar[int]
    prepare_micros: int
    queue_micros: int
    compute_micros: int
    def __init__(self, prepare_micros: _Optional[int] = ..., queue_micros: _Optional[int] = ..., compute_micros: _Optional[int] = ...) -> None: ...

class CacheUse(_message.Message):
    __slots__ = ("prefix_positions_reused", "prefix_positions_computed", "vision_reused")
    PREFIX_POSITIONS_REUSED_FIELD_NUMBER: _ClassVar[int]
    PREFIX_POSITIONS_COMPUTED_FIELD_NUMBER: _ClassVar[int]
    VISION_REUSED_FIELD_NUMBER: _ClassVar[int]
    prefix_positions_reused: int
    prefix_positions_computed: int
    vision_reused: bool
    def __init__(self, prefix_positions_reused: _Optional[int] = ..., prefix_positions_computed: _Optional[int] = ..., vision_reused: bool = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("key", "version", "valid", "invalid", "timing", "cache")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VALID_FIELD_NUMBER: _ClassVar[int]
    INVALID_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    key: Key
    version: str
    valid: Valid
    invalid: Invalid
    timing: Timing
    cache: CacheUse
    def __init__(self, key: _Optional[_Union[Key, _Mapping]] = ..., version: _Optional[str] = ..., valid: _Optional[_Union[Valid, _Mapping]] = ..., invalid: _Optional[_Union[Invalid, _Mapping]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ..., cache: _Optional[_Union[CacheUse, _Mapping]] = ...) -> None: ...

class Notice(_message.Message):
    __slots__ = ("kind", "max_unfinished_items", "max_unfinished_bytes", "detail")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MAX_UNFINISHED_ITEMS_FIELD_NUMBER: _ClassVar[int]
    MAX_UNFINISHED_BYTES_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    kind: NoticeKind
    max_unfinished_items: int
    max_unfinished_bytes: int
    detail: str
    def __init__(self, kind: _Optional[_Union[NoticeKind, str]] = ..., max_unfinished_items: _Optional[int] = ..., max_unfinished_bytes: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

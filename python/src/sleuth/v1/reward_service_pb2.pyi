from google.protobuf import duration_pb2 as _duration_pb2
from sleuth.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Corrector(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CORRECTOR_UNSPECIFIED: _ClassVar[Corrector]
    CORRECTOR_BUILTIN: _ClassVar[Corrector]
    CORRECTOR_ENDPOINT: _ClassVar[Corrector]
    CORRECTOR_GUIDANCE: _ClassVar[Corrector]

class Guidance(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GUIDANCE_UNSPECIFIED: _ClassVar[Guidance]
    GUIDANCE_TOKEN: _ClassVar[Guidance]
    GUIDANCE_RESPONSE: _ClassVar[Guidance]
    GUIDANCE_NAIVE: _ClassVar[Guidance]

class DropReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DROP_REASON_UNSPECIFIED: _ClassVar[DropReason]
    DROP_REASON_NOT_FEWER_FLAGS: _ClassVar[DropReason]
    DROP_REASON_SMALL_GAIN: _ClassVar[DropReason]
    DROP_REASON_NEW_FLAGGED_SENTENCE: _ClassVar[DropReason]
    DROP_REASON_TEXT_LOST: _ClassVar[DropReason]
    DROP_REASON_TEXT_ADDED: _ClassVar[DropReason]
    DROP_REASON_OTHER_BETTER: _ClassVar[DropReason]
    DROP_REASON_UNSCORED: _ClassVar[DropReason]

class SuffixAttention(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SUFFIX_ATTENTION_UNSPECIFIED: _ClassVar[SuffixAttention]
    SUFFIX_ATTENTION_CAUSAL: _ClassVar[SuffixAttention]
    SUFFIX_ATTENTION_FULL: _ClassVar[SuffixAttention]
CORRECTOR_UNSPECIFIED: Corrector
CORRECTOR_BUILTIN: Corrector
CORRECTOR_ENDPOINT: Corrector
CORRECTOR_GUIDANCE: Corrector
GUIDANCE_UNSPECIFIED: Guidance
GUIDANCE_TOKEN: Guidance
GUIDANCE_RESPONSE: Guidance
GUIDANCE_NAIVE: Guidance
DROP_REASON_UNSPECIFIED: DropReason
DROP_REASON_NOT_FEWER_FLAGS: DropReason
DROP_REASON_SMALL_GAIN: DropReason
DROP_REASON_NEW_FLAGGED_SENTENCE: DropReason
DROP_REASON_TEXT_LOST: DropReason
DROP_REASON_TEXT_ADDED: DropReason
DROP_REASON_OTHER_BETTER: DropReason
DROP_REASON_UNSCORED: DropReason
SUFFIX_ATTENTION_UNSPECIFIED: SuffixAttention
SUFFIX_ATTENTION_CAUSAL: SuffixAttention
SUFFIX_ATTENTION_FULL: SuffixAttention

class Append(_message.Message):
    __slots__ = ("key", "offset", "text", "policy")
    KEY_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    key: _types_pb2.Key
    offset: int
    text: bytes
    policy: _types_pb2.PolicyTokens
    def __init__(self, key: _Optional[_Union[_types_pb2.Key, _Mapping]] = ..., offset: _Optional[int] = ..., text: _Optional[bytes] = ..., policy: _Optional[_Union[_types_pb2.PolicyTokens, _Mapping]] = ...) -> None: ...

class ScoreTokensRequest(_message.Message):
    __slots__ = ("score", "open", "append", "close", "cancel")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    APPEND_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    score: _types_pb2.Item
    open: _types_pb2.Context
    append: Append
    close: _types_pb2.Key
    cancel: _types_pb2.Key
    def __init__(self, score: _Optional[_Union[_types_pb2.Item, _Mapping]] = ..., open: _Optional[_Union[_types_pb2.Context, _Mapping]] = ..., append: _Optional[_Union[Append, _Mapping]] = ..., close: _Optional[_Union[_types_pb2.Key, _Mapping]] = ..., cancel: _Optional[_Union[_types_pb2.Key, _Mapping]] = ...) -> None: ...

class ScoreTokensResponse(_message.Message):
    __slots__ = ("scores", "verdict", "notice")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    scores: _types_pb2.Scores
    verdict: _types_pb2.Verdict
    notice: _types_pb2.Notice
    def __init__(self, scores: _Optional[_Union[_types_pb2.Scores, _Mapping]] = ..., verdict: _Optional[_Union[_types_pb2.Verdict, _Mapping]] = ..., notice: _Optional[_Union[_types_pb2.Notice, _Mapping]] = ...) -> None: ...

class ScoreBatchRequest(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[_types_pb2.Item]
    def __init__(self, items: _Optional[_Iterable[_Union[_types_pb2.Item, _Mapping]]] = ...) -> None: ...

class ItemResult(_message.Message):
    __slots__ = ("scores", "verdict")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    scores: _types_pb2.Scores
    verdict: _types_pb2.Verdict
    def __init__(self, scores: _Optional[_Union[_types_pb2.Scores, _Mapping]] = ..., verdict: _Optional[_Union[_types_pb2.Verdict, _Mapping]] = ...) -> None: ...

class ScoreBatchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ItemResult]
    def __init__(self, results: _Optional[_Iterable[_Union[ItemResult, _Mapping]]] = ...) -> None: ...

class CorrectItem(_message.Message):
    __slots__ = ("item", "corrector", "max_rounds", "max_candidates", "guidance", "seed")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    CORRECTOR_FIELD_NUMBER: _ClassVar[int]
    MAX_ROUNDS_FIELD_NUMBER: _ClassVar[int]
    MAX_CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    item: _types_pb2.Item
    corrector: Corrector
    max_rounds: int
    max_candidates: int
    guidance: Guidance
    seed: int
    def __init__(self, item: _Optional[_Union[_types_pb2.Item, _Mapping]] = ..., corrector: _Optional[_Union[Corrector, str]] = ..., max_rounds: _Optional[int] = ..., max_candidates: _Optional[int] = ..., guidance: _Optional[_Union[Guidance, str]] = ..., seed: _Optional[int] = ...) -> None: ...

class CorrectRequest(_message.Message):
    __slots__ = ("item", "cancel")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    item: CorrectItem
    cancel: _types_pb2.Key
    def __init__(self, item: _Optional[_Union[CorrectItem, _Mapping]] = ..., cancel: _Optional[_Union[_types_pb2.Key, _Mapping]] = ...) -> None: ...

class CorrectScored(_message.Message):
    __slots__ = ("key", "scores", "valid", "words")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    VALID_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    key: _types_pb2.Key
    scores: _types_pb2.Scores
    valid: _types_pb2.Valid
    words: _containers.RepeatedCompositeFieldContainer[_types_pb2.Span]
    def __init__(self, key: _Optional[_Union[_types_pb2.Key, _Mapping]] = ..., scores: _Optional[_Union[_types_pb2.Scores, _Mapping]] = ..., valid: _Optional[_Union[_types_pb2.Valid, _Mapping]] = ..., words: _Optional[_Iterable[_Union[_types_pb2.Span, _Mapping]]] = ...) -> None: ...

class Proposal(_message.Message):
    __slots__ = ("key", "round", "response", "replaced", "guidance", "candidate")
    KEY_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    REPLACED_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    key: _types_pb2.Key
    round: int
    response: bytes
    replaced: _containers.RepeatedCompositeFieldContainer[_types_pb2.Span]
    guidance: bytes
    candidate: int
    def __init__(self, key: _Optional[_Union[_types_pb2.Key, _Mapping]] = ..., round: _Optional[int] = ..., response: _Optional[bytes] = ..., replaced: _Optional[_Iterable[_Union[_types_pb2.Span, _Mapping]]] = ..., guidance: _Optional[bytes] = ..., candidate: _Optional[int] = ...) -> None: ...

class Rescored(_message.Message):
    __slots__ = ("key", "round", "scores", "valid", "kept", "drop_reason", "candidate", "invalid")
    KEY_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    VALID_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    DROP_REASON_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    INVALID_FIELD_NUMBER: _ClassVar[int]
    key: _types_pb2.Key
    round: int
    scores: _types_pb2.Scores
    valid: _types_pb2.Valid
    kept: bool
    drop_reason: DropReason
    candidate: int
    invalid: _types_pb2.Invalid
    def __init__(self, key: _Optional[_Union[_types_pb2.Key, _Mapping]] = ..., round: _Optional[int] = ..., scores: _Optional[_Union[_types_pb2.Scores, _Mapping]] = ..., valid: _Optional[_Union[_types_pb2.Valid, _Mapping]] = ..., kept: bool = ..., drop_reason: _Optional[_Union[DropReason, str]] = ..., candidate: _Optional[int] = ..., invalid: _Optional[_Union[_types_pb2.Invalid, _Mapping]] = ...) -> None: ...

class Change(_message.Message):
    __slots__ = ("before", "after")
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    before: _types_pb2.Span
    after: _types_pb2.Span
    def __init__(self, before: _Optional[_Union[_types_pb2.Span, _Mapping]] = ..., after: _Optional[_Union[_types_pb2.Span, _Mapping]] = ...) -> None: ...

class Attempt(_message.Message):
    __slots__ = ("round", "candidate", "reward", "flagged_tokens", "kept", "drop_reason")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    FLAGGED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    DROP_REASON_FIELD_NUMBER: _ClassVar[int]
    round: int
    candidate: int
    reward: float
    flagged_tokens: int
    kept: bool
    drop_reason: DropReason
    def __init__(self, round: _Optional[int] = ..., candidate: _Optional[int] = ..., reward: _Optional[float] = ..., flagged_tokens: _Optional[int] = ..., kept: bool = ..., drop_reason: _Optional[_Union[DropReason, str]] = ...) -> None: ...

class Final(_message.Message):
    __slots__ = ("response", "rounds", "kept", "verdict", "changes", "reward_before", "attempts", "stopped")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    REWARD_BEFORE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    response: bytes
    rounds: int
    kept: int
    verdict: _types_pb2.Verdict
    changes: _containers.RepeatedCompositeFieldContainer[Change]
    reward_before: float
    attempts: _containers.RepeatedCompositeFieldContainer[Attempt]
    stopped: _types_pb2.Invalid
    def __init__(self, response: _Optional[bytes] = ..., rounds: _Optional[int] = ..., kept: _Optional[int] = ..., verdict: _Optional[_Union[_types_pb2.Verdict, _Mapping]] = ..., changes: _Optional[_Iterable[_Union[Change, _Mapping]]] = ..., reward_before: _Optional[float] = ..., attempts: _Optional[_Iterable[_Union[Attempt, _Mapping]]] = ..., stopped: _Optional[_Union[_types_pb2.Invalid, _Mapping]] = ...) -> None: ...

class CorrectResponse(_message.Message):
    __slots__ = ("scored", "proposal", "rescored", "final", "notice")
    SCORED_FIELD_NUMBER: _ClassVar[int]
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    RESCORED_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    scored: CorrectScored
    proposal: Proposal
    rescored: Rescored
    final: Final
    notice: _types_pb2.Notice
    def __init__(self, scored: _Optional[_Union[CorrectScored, _Mapping]] = ..., proposal: _Optional[_Union[Proposal, _Mapping]] = ..., rescored: _Optional[_Union[Rescored, _Mapping]] = ..., final: _Optional[_Union[Final, _Mapping]] = ..., notice: _Optional[_Union[_types_pb2.Notice, _Mapping]] = ...) -> None: ...

class ImageHeader(_message.Message):
    __slots__ = ("blake3", "size_bytes")
    BLAKE3_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    blake3: bytes
    size_bytes: int
    def __init__(self, blake3: _Optional[bytes] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class PutImageRequest(_message.Message):
    __slots__ = ("header", "chunk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: ImageHeader
    chunk: bytes
    def __init__(self, header: _Optional[_Union[ImageHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class PutImageResponse(_message.Message):
    __slots__ = ("blake3", "was_present")
    BLAKE3_FIELD_NUMBER: _ClassVar[int]
    WAS_PRESENT_FIELD_NUMBER: _ClassVar[int]
    blake3: bytes
    was_present: bool
    def __init__(self, blake3: _Optional[bytes] = ..., was_present: bool = ...) -> None: ...

class HasImagesRequest(_message.Message):
    __slots__ = ("blake3",)
    BLAKE3_FIELD_NUMBER: _ClassVar[int]
    blake3: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, blake3: _Optional[_Iterable[bytes]] = ...) -> None: ...

class HasImagesResponse(_message.Message):
    __slots__ = ("present",)
    PRESENT_FIELD_NUMBER: _ClassVar[int]
    present: _containers.RepeatedScalarFieldContainer[bool]
    def __init__(self, present: _Optional[_Iterable[bool]] = ...) -> None: ...

class TokenizeRequest(_message.Message):
    __slots__ = ("text", "adapter")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    text: bytes
    adapter: str
    def __init__(self, text: _Optional[bytes] = ..., adapter: _Optional[str] = ...) -> None: ...

class TokenizeResponse(_message.Message):
    __slots__ = ("id", "start", "end", "version")
    ID_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    id: _containers.RepeatedScalarFieldContainer[int]
    start: _containers.RepeatedScalarFieldContainer[int]
    end: _containers.RepeatedScalarFieldContainer[int]
    version: str
    def __init__(self, id: _Optional[_Iterable[int]] = ..., start: _Optional[_Iterable[int]] = ..., end: _Optional[_Iterable[int]] = ..., version: _Optional[str] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("adapter",)
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    adapter: str
    def __init__(self, adapter: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("name", "version", "architecture", "adapter", "prompt", "threshold", "suffix_attention", "max_prompt_tokens", "max_response_tokens", "max_item_bytes", "max_batch_items", "max_unfinished_items", "max_timeout")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    SUFFIX_ATTENTION_FIELD_NUMBER: _ClassVar[int]
    MAX_PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_RESPONSE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEM_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_ITEMS_FIELD_NUMBER: _ClassVar[int]
    MAX_UNFINISHED_ITEMS_FIELD_NUMBER: _ClassVar[int]
    MAX_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    architecture: str
    adapter: str
    prompt: str
    threshold: float
    suffix_attention: SuffixAttention
    max_prompt_tokens: int
    max_response_tokens: int
    max_item_bytes: int
    max_batch_items: int
    max_unfinished_items: int
    max_timeout: _duration_pb2.Duration
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., architecture: _Optional[str] = ..., adapter: _Optional[str] = ..., prompt: _Optional[str] = ..., threshold: _Optional[float] = ..., suffix_attention: _Optional[_Union[SuffixAttention, str]] = ..., max_prompt_tokens: _Optional[int] = ..., max_response_tokens: _Optional[int] = ..., max_item_bytes: _Optional[int] = ..., max_batch_items: _Optional[int] = ..., max_unfinished_items: _Optional[int] = ..., max_timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

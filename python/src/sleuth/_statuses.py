"""What gRPC statuses mean."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2 as details_pb2
from google.rpc import status_pb2

from sleuth.errors import DeadlineError, Refusal, RefusedError, SleuthError, UnavailableError

DETAILS_KEY = "grpc-status-details-bin"

# What a code most likely means where no class is named; others are `model_failure`.
CLASSES = {
    grpc.StatusCode.INVALID_ARGUMENT: "invalid_request",
    grpc.StatusCode.FAILED_PRECONDITION: "invalid_request",
    grpc.StatusCode.OUT_OF_RANGE: "too_large",
    grpc.StatusCode.UNAUTHENTICATED: "unauthenticated",
    grpc.StatusCode.PERMISSION_DENIED: "denied",
    grpc.StatusCode.NOT_FOUND: "unknown",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "quota",
    grpc.StatusCode.UNAVAILABLE: "overload",
    grpc.StatusCode.DEADLINE_EXCEEDED: "deadline",
    grpc.StatusCode.CANCELLED: "cancelled",
    grpc.StatusCode.ABORTED: "version_changed",
    grpc.StatusCode.UNIMPLEMENTED: "unsupported",
}
RETRYABLE = frozenset({"quota", "overload", "draining"})


def refusal(error: grpc.RpcError) -> Refusal:
    """A call's status, with its `google.rpc` details."""
    code, text = error.code(), error.details() or ""
    info, retry, request = (
        details_pb2.ErrorInfo(),
        details_pb2.RetryInfo(),
        details_pb2.BadRequest(),
    )
    told_when = False
    for detail in _details(error):
        told_when = detail.Unpack(retry) or told_when
        _ = detail.Unpack(info) or detail.Unpack(request)
    error_class = info.metadata.get("class", "") or CLASSES.get(code, "model_failure")
    fields = [violation.field for violation in request.field_violations]
    asked = retry.retry_delay.ToNanoseconds() / 1e9 if retry.HasField("retry_delay") else None
    return Refusal(
        error_class=error_class,
        reason=info.reason.lower(),
        detail=text or code.name.lower(),
        field=fields[0] if fields else "",
        retryable=told_when or error_class in RETRYABLE,
        retry_after=asked,
    )


def from_server(error: grpc.RpcError) -> bool:
    """Whether the server itself said so, not the connection to it."""
    info = details_pb2.ErrorInfo()
    return any(d.Unpack(info) and info.domain == "sleuth" for d in _details(error))


def error_of(error: grpc.RpcError, url: str) -> SleuthError:
    """The exception for a call that failed."""
    if from_server(error):
        return RefusedError(refusal(error))
    if error.code() == grpc.StatusCode.UNAVAILABLE:
        return UnavailableError(f"{url}: {error.details()}")
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineError(f"{url}: the call's time is over")
    return RefusedError(refusal(error))


def _details(error: grpc.RpcError) -> list[Any]:
    metadata: Any = error.trailing_metadata() or ()
    for key, value in metadata:
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return list(status_pb2.Status.FromString(value).details)
            except DecodeError:
                return []
    return []

"""The caller's trace, where OpenTelemetry is installed."""

from __future__ import annotations

from functools import cache
from typing import Any


def current() -> tuple[str, str]:
    """W3C `traceparent` and `tracestate` of the current context; empty where there is none."""
    inject = _inject()
    if inject is None:
        return "", ""
    carrier: dict[str, str] = {}
    inject(carrier)
    return carrier.get("traceparent", ""), carrier.get("tracestate", "")


@cache
def _inject() -> Any:
    try:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ModuleNotFoundError:
        return None
    return TraceContextTextMapPropagator().inject

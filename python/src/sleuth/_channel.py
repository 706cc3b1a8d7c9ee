"""The connection to a server, and how a client is known by it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import grpc

from sleuth.errors import InputError
from sleuth.settings import Settings

Pem = bytes | str | os.PathLike[str] | None
"""A PEM text as bytes, or the path of a PEM file."""

# A batch of verdicts is read as it comes; a single one may hold all tokens of a long response.
MAX_REPLY_BYTES = 64 << 20


@dataclass(frozen=True)
class Address:
    """A server, and what it takes to be sure of it and to be known by it."""

    url: str
    token: str | None = field(default=None, repr=False)
    ca: Pem = None
    certificate: Pem = None
    key: Pem = field(default=None, repr=False)
    server_name: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.url, str):
            raise TypeError(f"url must be a str, not {type(self.url).__name__}")
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
            raise InputError(
                f"url: {self.url!r} is no address of a server; give one such as "
                "http://127.0.0.1:50051 or https://rewards.internal:50051"
            )
        if parts.scheme == "http" and (self.ca is not None or self.certificate is not None):
            raise InputError("url: certificates are for https; give an https URL")
        if (self.certificate is None) != (self.key is None):
            raise InputError("certificate, key: give both or neither")
        if self.token is not None and (not self.token.isprintable() or not self.token.isascii()):
            raise InputError("token: holds characters that no header may have; is it a whole line?")

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call."""
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)

    def connect(self, settings: Settings) -> grpc.Channel:
        """A channel; it connects when it is used."""
        parts = urlsplit(self.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        options: list[tuple[str, str | int]] = [
            ("grpc.max_receive_message_length", MAX_REPLY_BYTES),
            ("grpc.max_send_message_length", -1),
            ("grpc.keepalive_time_ms", int(settings.keepalive_interval * 1000)),
            ("grpc.keepalive_timeout_ms", int(settings.keepalive_timeout * 1000)),
            ("grpc.http2.max_pings_without_data", 0),
            # A server that restarts is found again in the time that items are tried again.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
            ("grpc.min_reconnect_backoff_ms", int(settings.connect_timeout * 1000)),
            # gRPC's own retries know nothing of verdicts.
            ("grpc.enable_retries", 0),
            # Each client has a connection of its own, as it has limits of its own.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if parts.scheme == "http":
            return grpc.insecure_channel(f"{host}:{port}", options)
        if self.server_name is not None:
            options.append(("grpc.ssl_target_name_override", self.server_name))
        credentials = grpc.ssl_channel_credentials(
            _pem(self.ca), _pem(self.key), _pem(self.certificate)
        )
        return grpc.secure_channel(f"{host}:{port}", credentials, options)


def _pem(source: Pem) -> bytes | None:
    if source is None or isinstance(source, bytes):
        return source
    return Path(source).read_bytes()

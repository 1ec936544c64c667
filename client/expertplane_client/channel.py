"""Opens channels to a planner: one place for options, credentials and the check of an address."""

from __future__ import annotations

import re

import grpc
import grpc.aio

from .errors import InputError


_HOST_AND_PORT = re.compile(r"(?:[^\s:/\[\]]+|\[[0-9a-fA-F:.%]+\]):(?P<port>[0-9]{1,5})")
_SCHEMES = ("dns:", "unix:", "ipv4:", "ipv6:", "xds:")

_OPTIONS: tuple[tuple[str, int], ...] = (
    # Plans of the largest deployments come to a few MiB; a planner sends at most 64.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", -1),
    # A vanished peer is noticed within 40 s; planners allow pings every 20 s.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # The caller's own back-off decides when to try again; gRPC's would wait up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)
# Participants of one process would otherwise share a connection and its limit of streams.
_PRIVATE = (("grpc.use_local_subchannel_pool", 1),)


def check_address(address: str) -> str:
    """Returns the address of a planner when it is in order.

    Raises:
        InputError: it is neither "host:port" nor a gRPC target with a scheme, such as
            "dns:///planner:50051".
    """
    match = _HOST_AND_PORT.fullmatch(address)
    has_port = match is not None and 1 <= int(match["port"]) <= 65535
    if not has_port and not address.startswith(_SCHEMES):
        raise InputError(
            f"Expected address to be 'host:port' with a port in [1, 65535], got {address!r}."
        )
    return address


def open_channel(
    address: str,
    credentials: grpc.ChannelCredentials | None = None,
    *,
    is_private: bool = False,
) -> grpc.aio.Channel:
    """Opens a channel for asyncio; nothing connects before the first call.

    Args:
        address: "host:port" or a gRPC target.
        credentials: TLS; None connects in the clear.
        is_private: Gives the channel a connection of its own.

    Raises:
        InputError: see `check_address`.
    """
    options = _OPTIONS + _PRIVATE if is_private else _OPTIONS
    if credentials is None:
        return grpc.aio.insecure_channel(check_address(address), options=options)
    return grpc.aio.secure_channel(check_address(address), credentials, options=options)


def open_blocking_channel(
    address: str, credentials: grpc.ChannelCredentials | None = None
) -> grpc.Channel:
    """Opens a channel for threads; nothing connects before the first call.

    Raises:
        InputError: see `check_address`.
    """
    if credentials is None:
        return grpc.insecure_channel(check_address(address), options=_OPTIONS)
    return grpc.secure_channel(check_address(address), credentials, options=_OPTIONS)

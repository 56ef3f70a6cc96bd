"""The audit hook: Python refuses to connect, send or look a name up outside this machine.

Local means: Unix sockets and the kernel's own (netlink, crypto); numeric loopback addresses; and the name `localhost`
where the hosts file has it, so that no name server is ever asked. Port 53 of the loopback is not local: a forwarding
name server listens there on many systems.

Source: PEP 578; the events are listed in the documentation of the modules `socket`, `urllib.request`, `webbrowser`.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
import sys
from collections.abc import Callable, Mapping
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_SHOWN = 60  # characters of a refused address in the message
_NAME_SERVER_PORTS = frozenset({53, 853})
_KERNEL_FAMILIES = frozenset(
    getattr(socket, name) for name in ("AF_UNIX", "AF_NETLINK", "AF_ALG") if hasattr(socket, name)
)


class NetworkRefused(PermissionError):  # noqa: N818, named for what happened, as BlockingIOError is
    """Something in this process tried to reach beyond this machine; nothing was sent.

    Carries an error number, since callers such as `socket.create_server` build their own error from it.
    """

    def __str__(self) -> str:
        return str(self.strerror)


def install() -> None:
    """Install the hook for the life of the process (Python offers no way to take one out); again is harmless."""
    global _is_installed
    if not _is_installed:
        _is_installed = True
        sys.addaudithook(_hook)
        _check_before_lookup()


def is_installed() -> bool:
    """Whether `install` has run in this process."""
    return _is_installed


def is_local(host: object) -> bool:
    """Whether a host is this machine, decided without asking a name server.

    >>> is_local("127.0.0.1"), is_local("::ffff:127.1.2.3"), is_local("192.0.2.1"), is_local("127.1")
    (True, True, False, False)
    """
    text = bytes(host).decode("ascii", "replace") if isinstance(host, bytes | bytearray) else host
    if not isinstance(text, str):
        return False
    if text.lower() == "localhost":
        return _localhost_is_listed()
    try:
        address = ip_address(text)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def _peer(sock: socket.socket, address: object) -> object | None:
    """What lies outside this machine in the address of a connect or send, or None."""
    outside = _interface(sock, address)
    if outside is None and isinstance(address, tuple) and address[1:2] and address[1] in _NAME_SERVER_PORTS:
        return address
    return outside


def _interface(sock: socket.socket, address: object) -> object | None:
    """What lies outside this machine in the address of a bind, or None."""
    if sock.family in _KERNEL_FAMILIES or address is None:  # None: sendmsg on a socket connected before
        return None
    return None if isinstance(address, tuple) and address and is_local(address[0]) else address


def _name(host: object, *_: object) -> object | None:
    """What lies outside this machine in a name to look up, or None (a lookup without a host is about this one)."""
    return None if host is None or is_local(host) else host


def _reverse(address: object) -> object | None:
    """An address to find the name of: only those that the hosts file has are found without a name server."""
    host = address[0] if isinstance(address, tuple) and address else address
    return None if host in ("127.0.0.1", "::1", "localhost") and _localhost_is_listed() else address


def _url(url: object, *_: object) -> object | None:
    """What lies outside this machine in a URL, or None."""
    if not isinstance(url, str):
        return url
    parts = urlsplit(url)
    return None if parts.scheme in ("file", "data", "") or is_local(parts.hostname) else url


# event -> its arguments -> the part outside this machine, or None
_CHECKS: Mapping[str, Callable[..., object | None]] = {
    "socket.bind": _interface,  # a server open to others is a connection too
    "socket.connect": _peer,
    "socket.sendmsg": _peer,
    "socket.sendto": _peer,
    "socket.getaddrinfo": _name,
    "socket.gethostbyname": _name,
    "socket.gethostbyaddr": _reverse,
    "socket.getnameinfo": _reverse,
    "urllib.Request": _url,
    "webbrowser.open": _url,
}

_is_installed = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    check = _CHECKS.get(event)  # this line runs on every import and open: nothing may come before it
    if check is not None:
        _refuse(event, check(*arguments))


def _refuse(event: str, outside: object | None) -> None:
    if outside is not None:
        what = f"{_short(outside)} ({event})"
        raise NetworkRefused(
            errno.EPERM, f"only this machine may be reached, got {what}; use a local file or 127.0.0.1"
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _check_before_lookup() -> None:
    """Make the socket methods check their address before they look it up.

    CPython resolves a host *name* first and raises the audit event afterwards (`sock_connect` in socketmodule.c), so
    the hook alone would come after a question to the name server that carries the name out.
    """
    for method, event, place in (
        ("bind", "socket.bind", 0),
        ("connect", "socket.connect", 0),
        ("connect_ex", "socket.connect", 0),
        ("sendto", "socket.sendto", -1),
        ("sendmsg", "socket.sendmsg", 3),
    ):
        if hasattr(socket.socket, method):
            setattr(socket.socket, method, _checked(getattr(socket.socket, method), event, place))


def _checked(method: Callable[..., Any], event: str, place: int) -> Callable[..., Any]:
    @functools.wraps(method)
    def checked(self: socket.socket, *arguments: Any) -> Any:
        address = arguments[place] if -len(arguments) <= place < len(arguments) else None
        if isinstance(address, tuple):
            _hook(event, (self, address))
        return method(self, *arguments)

    return checked


@functools.cache
def _localhost_is_listed() -> bool:
    """Whether the hosts file has `localhost`, so that looking it up asks nobody; Windows knows it without a file."""
    if os.name == "nt":
        return True
    try:
        lines = Path("/etc/hosts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any("localhost" in line.partition("#")[0].split()[1:] for line in lines)

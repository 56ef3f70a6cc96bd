"""Attempts to leave this machine, really made, and what stopped each.

They aim at 192.0.2.1, an address that documentation is written with (TEST-NET-1, RFC 5737) and nobody has, and at a
name under `.invalid`, which nobody can have (RFC 6761); where nothing holds, that is all that would leave.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from offline_tune.airgap import namespace
from offline_tune.airgap.hook import NetworkRefused

ADDRESS = "192.0.2.1"
NAME = "offline-tune.invalid"
_SECONDS = 1.0

_CHILD = f"""
import socket
sock = socket.socket()
sock.settimeout({_SECONDS})
try:
    sock.connect(("{ADDRESS}", 80))
except OSError as error:
    print(error.errno or 0)
"""


@dataclass(frozen=True, slots=True)
class Probe:
    """One attempt to leave this machine.

    Attributes:
        name: what was tried: `urllib`, `connect`, `send`, `lookup` or `subprocess`.
        refused: whether it was stopped before anything left.
        by: what stopped it: `audit hook`, `network namespace`, `no route`, `no name server`, `firewall`, or `nothing`.
        detail: the error, one line; empty where there was none.
    """

    name: str
    refused: bool
    by: str
    detail: str


def probe(*names: str) -> tuple[Probe, ...]:
    """Try to leave this machine in each of the named ways, or in all of them; at most a second or so each.

    Raises:
        KeyError: a name is not one of `urllib`, `connect`, `send`, `lookup`, `subprocess`.
    """
    return tuple(_probe(name, _ATTEMPTS[name]) for name in names or _ATTEMPTS)


def _probe(name: str, attempt: Callable[[], None]) -> Probe:
    try:
        attempt()
    except OSError as error:
        reason = getattr(error, "reason", None)  # urllib wraps the cause
        cause = reason if isinstance(reason, OSError) else error
        stopped = _stopped_by(cause)
        return Probe(name, stopped is not None, stopped or "nothing", " ".join(str(cause).split()))
    return Probe(name, False, "nothing", "")


def _stopped_by(error: OSError) -> str | None:
    """What an error says has stopped the attempt; None where a time-out or an answer shows that it left."""
    if isinstance(error, NetworkRefused):
        return "audit hook"
    if isinstance(error, socket.gaierror):
        return _without_network("no name server") if error.errno == socket.EAI_AGAIN else None
    if error.errno in (errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL):
        return _without_network("no route")
    return "firewall" if error.errno in (errno.EPERM, errno.EACCES) else None


def _without_network(otherwise: str) -> str:
    return "network namespace" if namespace.holds() else otherwise


def _by_urllib() -> None:
    from urllib.request import urlopen

    urlopen(f"http://{ADDRESS}/", timeout=_SECONDS).close()


def _by_connecting() -> None:
    with socket.socket() as sock:
        sock.settimeout(_SECONDS)
        sock.connect((ADDRESS, 80))


def _by_sending() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"", (ADDRESS, 9))


def _by_looking_up() -> None:
    socket.getaddrinfo(NAME, 80)


def _by_subprocess() -> None:
    """Another program has no audit hook: only the namespace, or the machine's own lack of a network, stops it."""
    child = subprocess.run([sys.executable, "-I", "-c", _CHILD], capture_output=True, text=True, check=True)
    if child.stdout:
        number = int(child.stdout) or errno.ETIMEDOUT
        raise OSError(number, os.strerror(number))


_ATTEMPTS: Mapping[str, Callable[[], None]] = {
    "urllib": _by_urllib,
    "connect": _by_connecting,
    "send": _by_sending,
    "lookup": _by_looking_up,
    "subprocess": _by_subprocess,
}

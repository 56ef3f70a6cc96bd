"""An empty network namespace (Linux): a network with nothing but its own loopback, for this process and its children.

The kernel enforces it, so C libraries and other programs are cut off with Python. A process with CAP_SYS_ADMIN takes
the network namespace alone; any other takes a user namespace with it, which maps exactly its own user and group, so
files keep their owner, and gives up at once the capabilities that came along, so permissions keep their meaning.

Sources: network_namespaces(7), user_namespaces(7), netdevice(7), capget(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

SWITCH = "OFFLINE_TUNE_NAMESPACE"  # "off": stay in the machine's own network, for instance to use a local database
_MARK = "OFFLINE_TUNE_NETWORK_NAMESPACE"  # the inode of the namespace that was entered; children inherit it

_CLONE_NEWUSER, _CLONE_NEWNET = 0x1000_0000, 0x4000_0000
_CAP_SYS_ADMIN = 21
_CAPABILITY_VERSION = 0x2008_0522
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1

_missing = "it was not asked for in this process"


def enter_empty_namespace(environment: Mapping[str, str] | None = None) -> bool:
    """Move this process into an empty network namespace, with its loopback up; again is harmless.

    Must run before any thread starts (so before numpy, torch and the like are imported): threads that exist already
    would stay behind. Programs that other people run on this machine's loopback are out of reach afterwards.

    Args:
        environment: where `OFFLINE_TUNE_NAMESPACE=off` is looked for; the process's own by default.

    Returns:
        Whether the process is in one; `why_not` says why not. Nothing has changed where it is not.
    """
    global _missing
    if holds():
        return True
    _missing = _obstacle(os.environ if environment is None else environment)
    if _missing:
        return False
    _cut_off()
    os.environ[_MARK] = _inode()
    return True


def holds() -> bool:
    """Whether this process lives in a namespace that it, or a parent of it, entered by `enter_empty_namespace`."""
    return _MARK in os.environ and os.environ[_MARK] == _inode()


def why_not() -> str:
    """Why `holds` is False, in one line; empty where it is True."""
    return "" if holds() else _missing


def loopback_works() -> bool:
    """Whether a connection to 127.0.0.1 arrives."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            with socket.create_connection(server.getsockname(), timeout=1):
                return True
    except OSError:
        return False


def _obstacle(environment: Mapping[str, str]) -> str:
    """What keeps this process from an empty namespace, or an empty line."""
    if sys.platform != "linux":
        return f"network namespaces exist on Linux only, this is {sys.platform}"
    if environment.get(SWITCH, "").lower() in ("off", "0", "no", "false"):
        return f"switched off by {SWITCH}={environment[SWITCH]}"
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        return f"it must be entered by a process with one thread, this one has {threads}"
    if os.geteuid() == 0 and not _may_administer():
        return "root without CAP_SYS_ADMIN would lose its rights to other users' files"
    return _rehearse()


def _rehearse() -> str:
    """Try it in a child first: a process whose user namespace was only half made could not leave it."""
    child = os.fork()
    if child == 0:
        try:
            _cut_off()
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or 1)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code in (errno.ENOSPC, errno.EUSERS):
        return "the system's limit on namespaces is reached (see /proc/sys/user)"
    return f"the system does not allow one ({os.strerror(abs(code))})" if code else ""


def _cut_off() -> None:
    if _may_administer():
        _unshare(_CLONE_NEWNET)
        _bring_loopback_up()
        return
    user, group = os.geteuid(), os.getegid()
    _unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    process = Path("/proc/self")
    (process / "setgroups").write_text("deny")  # the kernel demands it before an unprivileged gid_map
    (process / "uid_map").write_text(f"{user} {user} 1")
    (process / "gid_map").write_text(f"{group} {group} 1")
    _bring_loopback_up()
    _drop_capabilities()


def _unshare(flags: int) -> None:
    if _libc().unshare(flags):  # os.unshare is there from Python 3.12 only
        _raise_errno()


def _bring_loopback_up() -> None:
    import fcntl

    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def _drop_capabilities() -> None:
    """A new user namespace gives every capability inside it, among them to write read-only files of one's own."""
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    if _libc().capset(header, bytes(24)):
        _raise_errno()


def _may_administer() -> bool:
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    effective = next(line.split()[1] for line in lines if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> _CAP_SYS_ADMIN & 1)


def _inode() -> str:
    try:
        return str(os.stat("/proc/self/ns/net").st_ino)
    except OSError:
        return ""


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _raise_errno() -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))

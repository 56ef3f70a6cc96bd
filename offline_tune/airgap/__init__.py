"""No network, provably: what a run may reach is this machine, and `status` says how that is held.

Four measures, each closing what the one before leaves open:

1. *switches* (`switches.py`): environment variables that turn telemetry, update checks and downloads of the
   dependencies off, and the C library's name lookups with them;
2. *audit hook* (`hook.py`): Python itself refuses to connect, send or look a name up outside this machine.
   C libraries and other programs do not pass through Python, so they evade it; therefore
3. *empty network namespace* (`namespace.py`, Linux): the kernel gives this process and all its children a network
   with nothing but its own loopback. Needs the right to make one, which some systems withhold;
4. *probe* (`probe.py`): attempts that really try, for `offline-tune doctor`.

Not held by any of them: Unix sockets to services of this machine (a container daemon, a name service), and
connections that were open before. Lowest layer: standard library only, nothing of offline_tune.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from offline_tune.airgap import hook, namespace, switches
from offline_tune.airgap.hook import NetworkRefused
from offline_tune.airgap.namespace import enter_empty_namespace
from offline_tune.airgap.probe import Probe, probe

__all__ = ["AirgapStatus", "NetworkRefused", "Probe", "engage", "enter_empty_namespace", "probe", "status"]


@dataclass(frozen=True, slots=True)
class AirgapStatus:
    """What holds in this process.

    Attributes:
        audit_hook: Python refuses connections and name lookups outside this machine.
        namespace: the process lives in an empty network namespace, and so do its children and C libraries.
        namespace_missing: why `namespace` is False, one line; empty where it is True.
        loopback: programs on this machine (in this namespace) can reach each other over 127.0.0.1.
        telemetry: the switches that are set as they should be, by name.
    """

    audit_hook: bool
    namespace: bool
    namespace_missing: str
    loopback: bool
    telemetry: Mapping[str, str]


def engage() -> AirgapStatus:
    """Set the switches and install the audit hook, for the life of the process; again is harmless.

    Call `enter_empty_namespace` first, at the very start of the program: it works only while there is one thread.
    A spawned worker inherits the namespace and the switches and needs `engage` alone.

    Returns:
        What holds from now on.
    """
    switches.turn_off(os.environ)
    hook.install()
    return status()


def status() -> AirgapStatus:
    """What holds now; reads only, and tries the loopback with one connection to itself."""
    return AirgapStatus(
        audit_hook=hook.is_installed(),
        namespace=namespace.holds(),
        namespace_missing=namespace.why_not(),
        loopback=namespace.loopback_works(),
        telemetry=switches.in_force(os.environ),
    )

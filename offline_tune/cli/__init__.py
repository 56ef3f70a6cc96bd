"""The command line: reads arguments, builds the parts, calls the tuner, prints. No other logic.

Results go to stdout, progress and errors to stderr. Exit codes come from the error tree (see `errors`).
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click

INTERRUPTED = 130
NETWORK_REFUSED = 13


def main() -> None:
    """Close the network first, then do as the arguments say; ends the process."""
    try:
        _prepare_process()
        code = run_command(sys.argv[1:])
    except KeyboardInterrupt:
        code = INTERRUPTED
    _ignore_interrupts()
    sys.exit(code)


def _ignore_interrupts() -> None:
    """The exit code stands: one Ctrl-C more, while the interpreter winds up, would kill the process and lose it."""
    while True:
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            return
        except KeyboardInterrupt:  # it came before the call took effect
            continue


def _prepare_process() -> None:
    # An OpenMP runtime reads it when it is loaded, so before anything else. Libraries whose idle threads spin stall
    # each other for hundreds of milliseconds a step.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Before anything that starts a thread: a namespace can only be entered by a process that has one.
    from offline_tune import airgap

    _complete_standard_streams()
    airgap.enter_empty_namespace()
    airgap.engage()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # a library's advice to programmers is nothing to a user


def run_command(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code. Errors of this program are one line on stderr."""
    import click

    from offline_tune.airgap import NetworkRefused
    from offline_tune.cli.commands import offline_tune
    from offline_tune.errors import OfflineTuneError

    try:
        # Not `offline_tune.main`: it takes a broken pipe or an end of file anywhere in the program for the user's wish.
        with offline_tune.make_context("offline-tune", list(arguments)) as context:
            offline_tune.invoke(context)
    except OfflineTuneError as error:
        _complain(str(error))
        return error.exit_code
    except NetworkRefused as refused:
        _complain(f"a run may not leave this machine: {refused}")
        return NETWORK_REFUSED
    except click.exceptions.Exit as end:
        return int(end.exit_code)
    except click.ClickException as error:
        _explain(error)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _explain(error: click.ClickException) -> None:
    """What click found wrong with the arguments, in one line; a command without any shows its help."""
    import click

    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return
    context = error.ctx if isinstance(error, click.UsageError) else None
    _complain(
        f"{error.format_message().rstrip('.')}; see `{context.command_path if context else 'offline-tune'} --help`"
    )


def _complain(message: str) -> None:
    from offline_tune.cli.output import say

    say(f"error: {' '.join(message.split())}")


def _complete_standard_streams() -> None:
    """Give a process that was started without one of its standard streams an empty one.

    Otherwise the next file opened, the study perhaps, would take its number, and whatever a library prints would be
    written into that file.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    if sys.stdout is not None:  # None where it was closed: then there is nobody to write to
        # A path or a name may hold what the terminal's encoding does not.
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]

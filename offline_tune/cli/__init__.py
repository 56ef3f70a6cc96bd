"""The command line: reads arguments, builds the parts, calls the tuner, prints. No other logic.

Results go to stdout, progress and errors to stderr. Exit codes come from the error tree (see `errors`).
"""

from __future__ import annotations

import os
import sys

INTERRUPTED = 130


def main() -> None:
    """Close the network first, then do as the arguments say; ends the process."""
    # Before anything that starts a thread: a namespace can only be entered by a process that has one.
    from offline_tune import airgap

    airgap.enter_empty_namespace()
    airgap.engage()
    # Two libraries whose idle threads spin stall each other for hundreds of milliseconds a step.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run one command; returns the exit code. Errors of this program are one line on stderr."""
    import click

    from offline_tune.cli.commands import offline_tune
    from offline_tune.errors import OfflineTuneError

    try:
        offline_tune.main(args=arguments, prog_name="offline-tune", standalone_mode=False)
    except OfflineTuneError as error:
        click.echo(f"error: {_one_line(str(error))}", err=True)
        return error.exit_code
    except click.exceptions.Exit as end:
        return int(end.exit_code)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of stdout has gone (`| head`); its absence must not be reported into the void at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


def _one_line(message: str) -> str:
    return " ".join(message.split())

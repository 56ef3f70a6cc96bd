"""Child processes that start clean: one thread each, deaf to Ctrl-C, and without running the caller's script again.

Python's own spawn imports the parent's main module in each child, so a script without the `if __name__ ==
"__main__"` guard would start itself over and over. Workers need nothing of it: what they run is importable.
The thread limits stand in the environment before the child imports anything, because OpenMP and OpenBLAS read
them once, as they load.

Knows nothing of trials, data or models; imports neither numpy nor a vendor.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from contextlib import suppress
from multiprocessing import context, reduction, resource_tracker, spawn, util
from multiprocessing.process import BaseProcess
from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]  # multiprocessing's own source

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
}


def clean_context() -> context.SpawnContext:
    """A multiprocessing context whose processes start clean (on Windows: the plain spawn context)."""
    return context.SpawnContext() if sys.platform == "win32" else CleanContext()


if sys.platform != "win32":
    from multiprocessing import popen_spawn_posix

    class CleanLaunch(popen_spawn_posix.Popen):
        """Starts the interpreter; differs from the base in the program it runs and in what it leaves out."""

        def _launch(self, process_obj: BaseProcess) -> None:
            tracker = resource_tracker.getfd()
            assert tracker is not None
            message = self._pickled(process_obj)
            # The child reads its task from `inbox`, and later knows by its end that the parent is gone; the parent
            # knows by the end of `alive` that the child is gone.
            inbox, parent_end = os.pipe()
            alive, child_end = os.pipe()
            self.finalizer = util.Finalize(self, _close, (parent_end, alive))
            inherited: list[int] = self._fds  # type: ignore[attr-defined]  # filled while the process is pickled
            try:
                self.pid = _deaf_to_interrupts(tracker, inbox, [*inherited, tracker, inbox, child_end])
                self.sentinel = alive
                with open(parent_end, "wb", closefd=False) as pipe:
                    pipe.write(message)
            finally:
                _close(inbox, child_end)

        def _pickled(self, process_obj: BaseProcess) -> bytes:
            preparation = spawn.get_preparation_data(process_obj.name)
            wanted = {name: value for name, value in preparation.items() if not name.startswith("init_main")}
            stream = io.BytesIO()
            context.set_spawning_popen(self)
            try:
                reduction.dump(wanted, stream)
                reduction.dump(process_obj, stream)
            finally:
                context.set_spawning_popen(None)
            return stream.getvalue()

    class CleanProcess(context.SpawnProcess):
        """A process of `CleanContext`."""

        @staticmethod
        def _Popen(process_obj: BaseProcess) -> CleanLaunch:  # noqa: N802
            return CleanLaunch(process_obj)

    class CleanContext(context.SpawnContext):
        """The spawn context with `CleanProcess`."""

        Process = CleanProcess

    def _deaf_to_interrupts(tracker: int, inbox: int, passed: list[int]) -> int:
        program = (
            f"import os; os.environ.update({ONE_THREAD!r}); from multiprocessing.spawn import spawn_main; "
            f"spawn_main(tracker_fd={tracker}, pipe_handle={inbox})"
        )
        executable, flags = os.fsencode(spawn.get_executable()), _args_from_interpreter_flags()
        arguments = [executable, *flags, "-c", program, "--multiprocessing-fork"]
        # The child inherits the mask: a Ctrl-C in the terminal reaches the parent alone, from the very first moment.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return util.spawnv_passfds(executable, arguments, passed)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _close(*descriptors: int) -> None:
        for descriptor in descriptors:
            with suppress(OSError):
                os.close(descriptor)

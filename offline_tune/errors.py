"""Every error that offline_tune raises on purpose.

Each message is one line: the rule, the value that broke it, the next step. The command line prints it and
exits with the class's `exit_code`; anything else that escapes is a bug and shows its traceback.

OfflineTuneError            1
├── UsageError              2   an option or argument does not fit
├── DataError               3   a data file cannot be read, or does not describe a task
│   ├── TargetError         4   the target column cannot be learnt
│   └── MetricError         5   the metric is unknown or does not fit the task
├── SpaceError              6   a search space is malformed, or a candidate lies outside it
├── ModelError              7   a GGUF file cannot be used
│   └── DecodingError       8   the grammar could not be enforced, or the context is too small
├── StudyError              9   the storage is damaged, locked or holds another study
├── OutputError             10  the output folder cannot be written
├── EvaluationError         11  no trial could be evaluated
└── ArtifactError           12  an exported model cannot be loaded or does not fit the data

airgap.NetworkRefused       13  something tried to leave this machine (a PermissionError, raised below this module)
Ctrl-C ends a run cleanly with exit code 130.
"""


class OfflineTuneError(Exception):
    """Base of the tree; the command line prints it and exits with `exit_code`."""

    exit_code = 1


class UsageError(OfflineTuneError):
    """An option or argument does not fit."""

    exit_code = 2


class DataError(OfflineTuneError):
    """A data file cannot be read, or does not describe a task."""

    exit_code = 3


class TargetError(DataError):
    """The target column cannot be learnt."""

    exit_code = 4


class MetricError(DataError):
    """The metric is unknown or does not fit the task."""

    exit_code = 5


class SpaceError(OfflineTuneError):
    """A search space is malformed, or a candidate lies outside it."""

    exit_code = 6


class ModelError(OfflineTuneError):
    """A GGUF file cannot be used."""

    exit_code = 7


class DecodingError(ModelError):
    """The grammar could not be enforced, or the context is too small."""

    exit_code = 8


class StudyError(OfflineTuneError):
    """The storage is damaged, locked or holds another study."""

    exit_code = 9


class OutputError(OfflineTuneError):
    """The output folder cannot be written."""

    exit_code = 10


class EvaluationError(OfflineTuneError):
    """No trial could be evaluated."""

    exit_code = 11


class ArtifactError(OfflineTuneError):
    """An exported model cannot be loaded or does not fit the data."""

    exit_code = 12

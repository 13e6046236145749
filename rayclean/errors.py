"""The errors that rayclean raises on purpose; all else is a bug.

RaycleanError             exit code 1   something that the user can act on
├── UnitError             exit code 1   a unit cannot be computed now; a rerun may
│   ├── ShardChangedError exit code 1   a shard is not the one that the catalog saw
│   ├── DamagedFile       exit code 1   a file of a run is missing or is not what was written
│   └── EnvironmentMixError             files of another environment lie in the folder
├── StageError            exit code 1   units of a stage failed
├── ClusterError          exit code 1   a node died or does not answer; a rerun may find it well
├── ConfigError           exit code 2   a config, an option or a path that cannot be right
├── InputError            exit code 2   data that cannot be read at all
└── RunHeldError          exit code 2   another driver holds the run
"""

from __future__ import annotations


class RaycleanError(Exception):
    """Base of every error that names a cause and a next step."""

    exit_code = 1


class UnitError(RaycleanError):
    """A unit could not be computed; the run goes on with what does not need it."""


class ShardChangedError(UnitError):
    """A shard's size or tag differs from what the catalog recorded."""


class DamagedFile(UnitError):
    """A file of a run is not there, or is not what was written.

    `run` sets it aside and computes it again; for commands that only read it is the end.

    Attributes:
        path: the file, as its file system knows it.
        reason: what is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        self.path, self.reason = path, reason
        # What commands alone read, such as the truth, a run does not look at: it sees only that it is missing.
        super().__init__(f"{path}: {reason}; remove it if it is there, and give `rayclean run` again: it is made anew")

    def __reduce__(self) -> tuple[type[DamagedFile], tuple[str, ...]]:
        return DamagedFile, (self.path, self.reason)


class LostFile(DamagedFile):
    """A file of a run is not there, or not yet."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "there is no such file")

    def __reduce__(self) -> tuple[type[DamagedFile], tuple[str, ...]]:
        return LostFile, (self.path,)


class StageError(RaycleanError):
    """Units of a stage failed, so that later stages cannot be computed."""


class ClusterError(RaycleanError):
    """A node of the cluster has died or does not answer."""


class ConfigError(RaycleanError):
    """The config, a command-line option or a path in it is wrong."""

    exit_code = 2


class InputError(RaycleanError):
    """The input data cannot be read at all: no match, not a tar, no access."""

    exit_code = 2


class RunHeldError(RaycleanError):
    """Another live driver holds the run."""

    exit_code = 2


class EnvironmentMixError(UnitError):
    """Finished units were computed in another environment than this one."""

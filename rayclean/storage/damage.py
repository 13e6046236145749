"""Files of a run that are damaged: set aside, so that what makes them runs again."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from rayclean.errors import DamagedFile
from rayclean.storage.store import Store

ASIDE = ".damaged"  # ends the name of a file that is set aside
MAX_TRIES = 2
T = TypeVar("T")
log = logging.getLogger(__name__)


class DamageFound(Exception):
    """Files that were met and are not what was written.

    Attributes:
        files: one or more.
    """

    def __init__(self, files: Sequence[DamagedFile]) -> None:
        super().__init__("; ".join(map(str, files)))
        self.files = files


def mended(store: Store, work: Callable[[], T]) -> T:
    """Does work that computes what is missing, and does it again as long as it meets damaged files of the run.

    Such a file is set aside, and with it what is done of its unit: work that is begun again finds it missing. A file
    that was made anew so often and is damaged still is the disk's matter.

    Args:
        store: the run's files.
        work: begins from the start each time.

    Raises:
        DamagedFile: it is of another run, or was set aside `MAX_TRIES` times.
    """
    tries: Counter[str] = Counter()
    while True:
        try:
            return work()
        except DamagedFile as e:
            found: Sequence[DamagedFile] = [e]
        except DamageFound as e:
            found = list({each.path: each for each in e.files}.values())  # several jobs may have met the same one
        for each in found:
            tries[each.path] += 1
            if not each.path.startswith(f"{store.path}/") or tries[each.path] > MAX_TRIES:
                raise each
            _set_aside(store, each)


def _set_aside(store: Store, damaged: DamagedFile) -> None:
    name = damaged.path.removeprefix(f"{store.path}/")
    with suppress(FileNotFoundError):  # it was missing, or is aside already
        store.move(name, name + ASIDE)
    log.warning("%s: %s; it is set aside (%s) and computed again", damaged.path, damaged.reason, ASIDE)

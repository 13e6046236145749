"""Which key stands for which class."""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence

from rayclean.schema import NONE_OF_CLASSES

COMMANDS = "kscduz"  # keep, suggestion, class by its name, drop, unsure, undo
DIGITS = "123456789"
LETTERS = "".join(letter for letter in string.ascii_lowercase if letter not in COMMANDS)


def fixed_keys(names: Sequence[str]) -> dict[int, str] | None:
    """Keys of all classes, the same for every picture; None where there are more classes than keys.

    A class whose name is a digit or a free letter has that key; the others have those that are left, in order.
    """
    own = {label: name for label, name in enumerate(names) if len(name) == 1 and name in string.digits + LETTERS}
    rest = [label for label in range(len(names)) if label not in own]
    left = [key for key in DIGITS + LETTERS if key not in own.values()]
    if len(rest) > len(left):
        return None
    return dict(sorted((own | dict(zip(rest, left, strict=False))).items()))


def likely_keys(labels: Iterable[int | None]) -> dict[int, str]:
    """Digits for the first nine different classes, where there are too many for one key each."""
    distinct = dict.fromkeys(label for label in labels if label is not None and label != NONE_OF_CLASSES)
    return dict(zip(distinct, DIGITS, strict=False))

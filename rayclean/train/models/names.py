"""What to say of a name that is not valid."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from rayclean.errors import ConfigError

LITE = "lite"  # of `model.name`: the network whose weights come in a package
LITE_SIZE = 128
SHOWN = 200  # timm has over a thousand names


def unknown_name(setting: str, name: str, valid: Sequence[str]) -> ConfigError:
    """The error for an unknown name, with the nearest valid one, or all (the first `SHOWN`) where none is near."""
    close = difflib.get_close_matches(name, valid, n=1)
    more = [f"and {len(valid) - SHOWN} more"] if len(valid) > SHOWN else []
    hint = f"did you mean '{close[0]}'?" if close else f"valid: {', '.join([*valid[:SHOWN], *more])}"
    return ConfigError(f"{setting}: unknown name '{name}'; {hint}")

"""URLs that carry a password or a signature are refused: URLs are written to the run folder, to logs and to pages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from rayclean.errors import ConfigError

_SECRET_PARAMETER = re.compile(r"[?&][^=&]*(signature|token|secret|credential|password|key)[^=&]*=", re.IGNORECASE)


def refuse_secrets(tree: Any, where: str = "") -> None:
    """Looks through a config's values.

    Args:
        tree: nested mappings, lists and plain values.
        where: its place in the config, for the error.

    Raises:
        ConfigError: a URL with credentials; it is not repeated.
    """
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            refuse_secrets(value, f"{where}.{name}" if where else str(name))
    elif isinstance(tree, list):
        for value in tree:
            refuse_secrets(value, where)
    elif isinstance(tree, str) and "://" in tree and _carries_secret(tree):
        raise ConfigError(
            f"{where}: a URL carries credentials, and URLs are written to the run folder and to logs; "
            "take them out and give them by the environment or the machine's role (cluster/README.md)"
        )


def _carries_secret(url: str) -> bool:
    return "@" in urlsplit(url).netloc or bool(_SECRET_PARAMETER.search(url))

"""URLs that may carry a secret are refused by their form: URLs are written to the run folder, to logs and to pages.

What a parameter is called says little (`sig`, `auth`, `code`, `X-Amz-…`), so all are refused but a few that are known
to name a version or a form of the content.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rayclean.errors import ConfigError

HARMLESS = frozenset({"versionId", "generation", "download", "raw", "ref"})
PATTERNS = ("data.shards", "influence.validation", "learn.test")  # where a ? may stand for any character
_USER_INFO = re.compile(r"://[^/?#]*@")
_PARAMETER = re.compile(r"([?#&;])([^?#&;=]*)(=?)")
ELSEWHERE = (
    "take it out and give it by the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for S3, "
    "GOOGLE_APPLICATION_CREDENTIALS for GCS, AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY or "
    "AZURE_STORAGE_SAS_TOKEN for Azure, or by the machine's role (cluster/README.md); signed URLs of shards by "
    "data.shards: env:NAME, an environment variable that holds them, one per line"
)


def refuse_secrets(tree: Any, where: str = "") -> None:
    """Looks through a config's values.

    Args:
        tree: nested mappings, lists and plain values.
        where: its place in the config, for the error.

    Raises:
        ConfigError: a URL that may carry credentials; it is not repeated.
    """
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            refuse_secrets(value, f"{where}.{name}" if where else str(name))
    elif isinstance(tree, list | tuple):
        for value in tree:
            refuse_secrets(value, where)
    elif isinstance(tree, str) and (what := _found_in(tree, where)):
        raise ConfigError(
            f"{where}: a URL carries credentials, or what may be some ({what}), and URLs are written to the run folder "
            f"and to logs; {ELSEWHERE}"
        )


def _found_in(value: str, where: str) -> str | None:
    """What of a value at a place (or in the section there) may be a secret; None where nothing is, or it is no URL."""
    _, colon, rest = value.partition("://")
    if not colon:
        return None
    if _USER_INFO.search(value):
        return "user info before an @"
    is_pattern = any(f"{name}.".startswith(f"{where}.") for name in PATTERNS)
    is_glob = is_pattern and not re.search(r"https?://", value, re.IGNORECASE)
    for mark, name, equals in _PARAMETER.findall(rest[_start_of_query(rest) :]):
        if name in HARMLESS or (is_glob and mark == "?" and not equals):
            continue
        return f"a {'fragment' if mark == '#' else 'query'} with other names than {', '.join(sorted(HARMLESS))}"
    return None


def _start_of_query(rest: str) -> int:
    found = re.search(r"[?#]", rest)
    return found.start() if found else len(rest)

"""The config that a run's last start has left in its folder."""

from __future__ import annotations

from rayclean.config import Config, parse_config, parse_yaml, without_retired
from rayclean.config.secrets import refuse_secrets
from rayclean.errors import InputError, RaycleanError
from rayclean.storage.store import Store

CONFIG_FILE = "config.yaml"


def load_run(folder: str) -> Config:
    """The config of the last start of a run, which lies where it is now and not where it was then.

    Args:
        folder: of the run, or its URL.

    Raises:
        ConfigError: the URL may carry credentials.
        InputError: there is no run, or it cannot be read.
    """
    refuse_secrets(folder, "RUN")
    try:
        tree, lines = parse_yaml(Store(folder).read(CONFIG_FILE), f"{folder}/{CONFIG_FILE}", room=2)
    except (FileNotFoundError, NotADirectoryError):
        message = f"{folder} holds no run (no {CONFIG_FILE}); give the run.dir of a config that was started"
        raise InputError(message) from None
    except RaycleanError:
        raise
    except Exception as error:  # each store has its own exceptions, few of them OSError
        raise InputError(f"{folder}: {CONFIG_FILE} cannot be read: {error or type(error).__name__}") from error
    if isinstance(tree.get("run"), dict):
        tree["run"] = {**tree["run"], "dir": folder}
    return parse_config(without_retired(tree), f"{folder}/{CONFIG_FILE}", lines)

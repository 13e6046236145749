"""Fingerprints (what a stage's result depends on) and environment stamps (what computed it)."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rayclean.errors import ConfigError

_LIBRARIES = ("torch", "numpy", "pyarrow", "pillow", "scikit-learn", "faiss-gpu", "faiss-cpu", "safetensors")
_CPU_FEATURES = ("avx", "avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve")


def fingerprint(stage: str, version: int, fields: Mapping[str, Any], inputs: Sequence[str]) -> str:
    """8 hex digits over a stage's format version, the config fields that it reads, and its inputs' fingerprints."""
    text = json.dumps([stage, version, fields, list(inputs)], sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def digest(data: bytes | memoryview) -> str:
    """SHA-256 of a file's bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def _cpu_features() -> list[str]:
    """Instruction sets that change how kernels add; empty where the system does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return []
    line = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    flags = set(line.split())
    return [name for name in _CPU_FEATURES if name in flags]


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.lru_cache(maxsize=8)
def environment_stamp(threads: int, device: str) -> str:
    """What may change the bits of a result, as JSON: device, instruction sets, versions, threads.

    Args:
        threads: threads of torch and FAISS in this process.
        device: `cpu`, or the accelerator's model name.
    """
    stamp = {
        "device": device,
        "machine": platform.machine(),
        "cpu_features": _cpu_features(),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "libraries": {name: version for name in _LIBRARIES if (version := _version(name))},
        "threads": threads,
    }
    return json.dumps(stamp, sort_keys=True)


def file_digest(path: str, field: str) -> str:
    """SHA-256 of a file that a config names.

    Args:
        path: the file.
        field: of the config, for the error.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as e:
        raise ConfigError(f"{field} {path}: cannot be read: {e.strerror or e}") from e

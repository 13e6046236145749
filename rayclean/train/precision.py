"""Which number format a network runs in, and the context that makes it so."""

from __future__ import annotations

from pathlib import Path

from rayclean.errors import ConfigError
from rayclean.late import torch

PRECISIONS = ("auto", "float32", "bfloat16")
CPU_INFO = Path("/proc/cpuinfo")
# Without them bfloat16 is emulated, which can be slower than float32.
CPU_FLAGS = {"avx512_bf16", "amx_bf16"}


def resolve_precision(setting: str, device: str | None = None) -> str:
    """Turns `auto` into `bfloat16` where the device computes in it natively, else into `float32`.

    Args:
        setting: `auto`, `float32` or `bfloat16`; the last two are taken as they are.
        device: type of the device that will run the network; by default `cuda` where there is one, else `cpu`.

    Raises:
        ConfigError: there is no such setting.
    """
    if setting not in PRECISIONS:
        raise ConfigError(f"precision: unknown name '{setting}'; valid: {', '.join(PRECISIONS)}")
    if setting != "auto":
        return setting
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = torch.device(device).type
    if kind == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = kind == "cpu" and bool(cpu_flags() & CPU_FLAGS)
    return "bfloat16" if native else "float32"


def cpu_flags() -> set[str]:
    """Instruction sets that Linux lists for the first CPU; none where it cannot be asked."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    flags = next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")
    return set(flags.split())


def autocast(precision: str, device: str | torch.device) -> torch.autocast:
    """The context in which a network runs in a resolved precision.

    `float32` switches an outer autocast off; weights stay float32 in both.
    """
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=precision == "bfloat16")

"""Which precision `auto` means, and what the context does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rayclean.errors import ConfigError
from rayclean.train import precision
from rayclean.train.precision import autocast, resolve_precision


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx2 avx512f", "float32"),
        ("fpu avx512f avx512_bf16", "bfloat16"),
        ("fpu amx_bf16 amx_tile", "bfloat16"),
        ("not_avx512_bf16", "float32"),
    ],
)
def test_auto_follows_the_flags_of_the_cpu(
    flags: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor\t: 0\nflags\t\t: {flags}\nvmx flags\t: avx512_bf16\n")
    monkeypatch.setattr(precision, "CPU_INFO", info)
    assert resolve_precision("auto", "cpu") == expected
    assert resolve_precision("float32", "cpu") == "float32"
    assert resolve_precision("bfloat16", "cpu") == "bfloat16"


def test_auto_is_float32_where_flags_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "CPU_INFO", tmp_path / "none")
    assert resolve_precision("auto", "cpu") == "float32"


@pytest.mark.parametrize(("native", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_asks_the_gpu_for_native_support(native: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert resolve_precision("auto", "cuda:0") == expected
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_precision("auto") == expected


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown name 'half'; valid: auto, float32, bfloat16"):
        resolve_precision("half")


def test_the_context_sets_the_dtype_of_matrix_products() -> None:
    a = torch.randn(4, 4)
    with autocast("bfloat16", "cpu"):
        assert (a @ a).dtype == torch.bfloat16
        with autocast("float32", torch.device("cpu")):
            assert (a @ a).dtype == torch.float32
    with autocast("float32", "cpu"):
        assert (a @ a).dtype == torch.float32

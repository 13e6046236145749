"""rayclean finds the wrong labels in image data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rayclean.memory.scorer import LabelScorer

__version__ = "0.1.0"
__all__ = ["LabelScorer", "__version__"]


def __getattr__(name: str) -> Any:
    """Loads what is heavy when it is asked for."""
    if name == "LabelScorer":
        from rayclean.memory.scorer import LabelScorer

        return LabelScorer
    raise AttributeError(f"module 'rayclean' has no attribute '{name}'")

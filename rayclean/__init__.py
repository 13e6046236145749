"""rayclean finds the wrong labels in image data sets."""

__version__ = "0.1.0"
__all__ = ["__version__"]

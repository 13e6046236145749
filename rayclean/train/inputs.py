"""What networks see of rows: their images, or features that stand for images of one pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rayclean.catalog.features import RowFeatures, StandardFeatures
from rayclean.catalog.table import Catalog
from rayclean.schema import Array
from rayclean.shards.access import PixelSettings


class Reader(Protocol):
    """Reads the rows of one catalog."""

    def read(self, rows: Array) -> Array:
        """(R, S, S, C) of one or more `rows` (R,), as the network's `NetworkSpec.inputs` takes them."""


class Inputs(Protocol):
    """How rows of any catalog are read: picklable."""

    def of(self, catalog: Catalog) -> Reader:
        """What reads a catalog's rows, one for all that a worker does."""


@dataclass(frozen=True)
class ImageInputs:
    """Images, (R, size, size, 3) uint8."""

    size: int
    pixels: PixelSettings

    def of(self, catalog: Catalog) -> Reader:
        """See `Inputs`."""
        return catalog.shared_pixels(self.size, self.pixels)


@dataclass(frozen=True)
class FeatureInputs:
    """Features, (R, 1, 1, d) float32, standardized.

    Attributes:
        statistics: folder of the means and deviations that they are standardized by, whatever the catalog.
    """

    statistics: str

    def of(self, catalog: Catalog) -> FeatureReader:
        """See `Inputs`."""
        return FeatureReader(StandardFeatures(RowFeatures(catalog), self.statistics))


@dataclass(frozen=True)
class FeatureReader:
    """Reads features of one catalog's rows."""

    features: StandardFeatures

    def read(self, rows: Array) -> Array:
        """(R, 1, 1, d) float32."""
        return self.features.read(rows)[:, np.newaxis, np.newaxis, :]

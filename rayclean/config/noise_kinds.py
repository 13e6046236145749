"""The kinds of noise made on purpose (docs/methods.md, section 9): what `noise.kind` and `noise.imbalance` may name.

Their functions lie in `rayclean.catalog`. To add one, write its function there and an entry here; from outside the
package, register the entry (docs/adding.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from rayclean.config.registry import Entry, Registry


@dataclass(frozen=True)
class NoiseKind(Entry):
    """A way of making labels wrong.

    Attributes:
        function: from `rayclean.catalog.noise.NoiseRows` to (N,) whole numbers, 0..K-1: the given labels. A row's
            label may depend on that row alone, or another split into shards gives other labels; draws are hashes
            (`rayclean.storage.draws`).
        settings: which of `noise.rate`, `.rates` and `.matrix` it reads: one of them is to be set, no other may be.
        num_classes: the only number of classes that it fits; None for any from 2.
        reads_images: whether it looks at pictures.
        version: raised when the same settings give other labels, so that catalogs of before are not taken for them.
    """

    settings: tuple[str, ...] = ("rate",)
    num_classes: int | None = None
    reads_images: bool = False
    version: int = 1


@dataclass(frozen=True)
class Imbalance(Entry):
    """A way of leaving rows out, by true class.

    Attributes:
        function: from (counts, ratio, classes) to (K,) float64 rows that each class should keep: `counts` (K,) float64
            rows of each, `ratio` = largest / smallest, at least 1, `classes` the pair of `noise.classes` or None.
        picks_classes: whether it keeps the two classes of `noise.classes` alone, which are then 0 and 1.
        version: as of `NoiseKind`.
    """

    picks_classes: bool = False
    version: int = 1


# r: the rate; K: the number of classes. The share of wrong labels is r where nothing else is said.
NOISE_KINDS = Registry(
    "noise.kind",
    "kind of noise",
    (
        NoiseKind(
            "symmetric",
            "any of the K classes, the true one included, so r (K-1)/K of the labels are wrong [INN, DivideMix]",
            "rayclean.catalog.flips:symmetric",
        ),
        NoiseKind(
            "symmetric_exclusive",
            "any of the other K-1 classes [Influential Rank, Co-teaching]",
            "rayclean.catalog.flips:symmetric_exclusive",
        ),
        NoiseKind(
            "asymmetric_cifar10",
            "9 to 1, 2 to 0, 4 to 7, 3 and 5 swapped, others stay: r/2 of balanced classes [INN, DivideMix]",
            "rayclean.catalog.flips:asymmetric_cifar10",
            num_classes=10,
        ),
        NoiseKind("next_class", "the next class [INN on CIFAR-100; AUM's flip]", "rayclean.catalog.flips:next_class"),
        NoiseKind(
            "matrix", "drawn from noise.matrix, P(given | true)", "rayclean.catalog.flips:matrix", settings=("matrix",)
        ),
        NoiseKind(
            "per_class",
            "any other class, each class at a rate of its own: noise.rates, or from 0 to 2r [our reading of ODD]",
            "rayclean.catalog.flips:per_class",
            settings=("rate", "rates"),
        ),
        NoiseKind(
            "instance",
            "by the picture: what a random projection of it likes best [Xia et al.]",
            "rayclean.catalog.instance_noise:instance",
            reads_images=True,
        ),
    ),
)
# f: 1 / noise.ratio.
IMBALANCES = Registry(
    "noise.imbalance",
    "imbalance",
    (
        Imbalance(
            "long_tail", "class k keeps f^(k/(K-1)) of the largest [LDAM]", "rayclean.catalog.imbalance:long_tail"
        ),
        Imbalance(
            "step", "the second half of the classes keeps f of the largest [LDAM]", "rayclean.catalog.imbalance:step"
        ),
        Imbalance(
            "two_class",
            "all of the first of noise.classes, f of the second, no other [INN, 4.4]",
            "rayclean.catalog.imbalance:two_class",
            picks_classes=True,
        ),
    ),
)

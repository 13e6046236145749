"""The sections of the config, one frozen model each; unknown fields and numbers that are none are refused.

A section's docstring says what it is for, the text below a field what that field does: docs/config.md and the helps
are made of these (`reference.py`). The sections of single scores are in `score_sections.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from rayclean.config.noise_kinds import IMBALANCES, NOISE_KINDS

Positive = Annotated[int, Field(gt=0, lt=2**63)]
PositiveNumber = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
# What is more is a slip of the pen: lists as long as this are made before anything is read.
MAX_CLASSES = 10**6
NO_IMAGE = "none"  # of data.image


def _a_folder(path: str) -> str:
    if not path.strip() or "\0" in path:
        raise ValueError("a folder or URL expected, such as runs/digits")
    return path


def _texts(classes: Any) -> Any:
    """Names that YAML did not take for names are refused with how it is told."""
    if isinstance(classes, bool):
        raise ValueError(f"expected a count, names or a file, and YAML takes yes and no for {classes}; quote it")
    for name in classes if isinstance(classes, list) else ():
        if not isinstance(name, str):
            raise ValueError(
                f"expected names, and YAML takes one for {name!r}, which is no text (so it does with no, yes, on, "
                "numbers, dates, null); quote it: ['no', '1']"
            )
    return classes


def _not_too_many(classes: int | list[str] | str) -> int | list[str] | str:
    if isinstance(classes, int) and classes > MAX_CLASSES:
        raise ValueError(f"at most {MAX_CLASSES} classes expected")
    return classes


class Section(BaseModel):
    """Base of all sections: frozen, no field that is not declared, no number that is none."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class RunSection(Section):
    """Where the run lies, what it keeps, and what computes it."""

    dir: Annotated[str, AfterValidator(_a_folder)]
    """The folder or URL of the run. On a cluster one that all nodes see, or an object store."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of all random draws. Run again with another one to see how much depends on chance."""
    keep: Literal["default", "all"] = "default"
    """What stays once the table is published: by `default` snapshots, trajectories, scores, beliefs and the last
    embedding; with `all` also the embeddings, neighbours and paths of every snapshot, many times as much."""
    mix_environments: bool = False
    """Accept pieces that were computed on other devices or with other library versions; last bits may differ."""
    executor: Literal["actors", "data", "inline"] = "actors"
    """`actors` of Ray that live as long as the run; `data`, Ray Data, a dataset per round; `inline`, this process
    alone, without Ray, for small runs: its training cannot be resumed in the middle."""


class DataSection(Section):
    """The shards, and how to read a sample."""

    shards: str | list[str]
    """Tars: a path or URL, a glob, a brace range (`{00000..00999}.tar`), a list of these, or `env:NAME` for those in
    an environment variable, one per line (signed URLs)."""
    image: str = "png;jpg;jpeg;webp;jpe;jfif"
    """Extensions of the image's member, the preferred one first; `none` where there are no images but `features`."""
    features: str | None = None
    """Features that are there already, instead of a network: a member of each sample by its extension (`npy`,
    `emb.npy`, `npz`; (d,) or (1, d) numbers), `file:PATTERN` of Parquet files (columns `key`, `features` or
    `embedding`, and `shard` where keys repeat across shards), or `clip-retrieval:FOLDER`."""
    label: str = "cls"
    """Where the given label is: the extension of a text member (`cls`; JSON such as `3`, `"dog"` or `[3]` will do),
    `json:path.to.field`, `info.json:path` (a field of a named member), or `folder`, the name of the folder that a
    sample lies in."""
    label_offset: int = Field(default=0, ge=-(2**31), le=2**31)
    """Subtracted from labels that are numbers: 1 where they count from 1."""
    truth: str | None = None
    """Where the true label is, as `label` says it. `rayclean evaluate` alone reads it; -1 is none of the classes, and
    where the field is missing or null nothing is known."""
    group: str | None = None
    """Where a video frame says which clip it is of, such as `json:clip`. Frames of a clip are no evidence for each
    other, and clips get a table of their own."""
    group_by: Literal["scores", "gradient"] = "scores"
    """A clip's `osm` and `osd`: the means of its frames' (`scores`), or from its mean `gradient`, as the paper has
    it."""
    classes: Annotated[int | list[str] | str, BeforeValidator(_texts), AfterValidator(_not_too_many)]
    """The names in the order of the labels, a file of them (one per line, or JSON: a list, or an object of names and
    labels, either way round), or their number (at most 10^6)."""
    size: Positive | None = None
    """Pixels: images are resized (short side) and centre-cropped to this. Without it the network's own size."""
    mean: tuple[float, float, float] | None = None
    """Subtracted from each channel of images in 0 to 1. Without it what the network was trained with."""
    std: tuple[PositiveNumber, PositiveNumber, PositiveNumber] | None = None
    """Divides each channel after `mean`. Without it what the network was trained with."""
    max_pixels: PositiveNumber = 50e6
    """An image of more pixels is quarantined, by its header, without being decoded."""
    max_scans: Positive = 100
    """A JPEG of more scans is quarantined: each of them decodes the whole image again."""
    max_bad_share: Share = 0.01
    """Exit code 3 where more than this share of the samples is in quarantine, or of the shards is cut short."""
    cache_bytes: int = Field(default=4 * 2**30, ge=0)
    """Bytes. A training set whose decoded images fit is kept in memory, decoded once and shuffled fully."""
    node_cache_bytes: int = Field(default=4 * 2**30, ge=0)
    """Bytes of disk for decoded images that the processes of a node share (in `TMPDIR`; at most half of what is free).
    Set it to the size of the decoded set where the disk has room: each image is then decoded once per node."""
    shuffle_rows: Positive = 10_000
    """Rows of the shuffle buffer of training, where the decoded images do not fit `cache_bytes`."""

    @property
    def image_extensions(self) -> tuple[str, ...]:
        """Image extensions in order of preference, lower case; none for `image: none`."""
        if not self.has_images:
            return ()
        return tuple(part.strip().lower() for part in self.image.split(";") if part.strip())

    @property
    def has_images(self) -> bool:
        """Whether samples have images."""
        return self.image.strip().lower() != NO_IMAGE


class NoiseSection(Section):
    """Noise made on purpose, for benchmarks: the labels of the shards are taken as the truth.

    Rows that `data.truth` says are of none of the classes (-1) keep their labels, and that truth; one of
    another class than the label is refused. Definitions: docs/methods.md, section 9.
    """

    kind: Annotated[str, AfterValidator(NOISE_KINDS.check)] | None = None
    """How labels go wrong; the kinds are below."""
    rate: Share | None = None
    """The rate r of `kind`; which share of the labels is then wrong, the kind says."""
    rates: list[Share] | None = None
    """For `per_class`: one rate per true class, in their order, instead of `rate`."""
    matrix: list[list[Share]] | None = None
    """For `matrix`: P(given | true), one row per true class; rows sum to 1."""
    imbalance: Annotated[str, AfterValidator(IMBALANCES.check)] | None = None
    """How rows are left out, by true class, before labels go wrong; the kinds are below."""
    ratio: float = Field(default=10.0, ge=1)
    """Of `imbalance`: rows of the largest class per row of the smallest."""
    classes: list[int] | None = None
    """For `two_class`: the two labels that stay; they are 0 and 1 from then on."""

    @property
    def is_on(self) -> bool:
        """Whether anything is done to the labels or rows."""
        return self.kind is not None or self.imbalance is not None

    @property
    def rates_array(self) -> NDArray[np.float64] | None:
        """(K,) rates of the true classes."""
        return None if self.rates is None else np.array(self.rates)

    @property
    def matrix_array(self) -> NDArray[np.float64] | None:
        """(K, K) P(given | true)."""
        return None if self.matrix is None else np.array(self.matrix)


class ModelSection(Section):
    """The network."""

    name: str = "small_resnet"
    """`small_resnet`, `preact_resnet18`, `wide_resnet28_2`, `resnet34_small`, `lite` (EfficientNet-Lite0 from a
    package, needs no hub), a name of torchvision, `timm:NAME`, or `package.module:factory`."""
    width: Positive = 16
    """Channels of the first layer of `small_resnet`."""
    weights: str | None = None
    """A file of weights to start from, or to look with where `frozen`; loaded without pickles. Without it training
    starts from random weights; a frozen network has those that timm (of the name's tag), torchvision or `lite` are
    published with."""
    bottleneck: Positive | None = None
    """Units of a layer put before the last one; 50 to 100 of them keep `osm` and `osd` affordable past 100 classes."""
    size: Positive | None = None
    """Pixels of the images that this network sees, where not `data.size`: for a role of another network."""
    frozen: bool = False
    """The network is not trained but looks once at each image, and all else is learned from its features. Better and
    much faster than training, wherever a pretrained network knows such images."""


class ScoreSection(Section):
    """How the network is run when it scores."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the network but its last layer, which is always float32; `auto`: bfloat16 where the device
    computes in it natively."""
    batch_size: Positive = 64
    """Images per forward; fixed, the last batch padded, so that results do not depend on it. More for large GPUs."""


class BlocksSection(Section):
    """Sizes of the units, the pieces that are computed, published and resumed whole.

    They are part of what results are named by: other sizes compute everything anew. Larger ones for 10^7 rows and more
    (docs/scale.md).
    """

    rows: Positive = 4000
    """Rows per unit of everything that goes by rows."""
    pairs: Positive = 4096
    """Pairs of neighbours per unit of the paths."""
    index_rows: Positive = 100_000
    """Rows per part of a neighbour index, and per group of INN's pairs."""
    table_rows: Positive = 1_000_000
    """Rows per file of the table; a multiple of `rows`."""


class MergeSection(Section):
    """Which score becomes a probability, what people have said, and where the cut lies."""

    score: str = "auto"
    """`joint` (also `auto`): one probability from all beliefs; or a score's name, for its own mixture alone."""
    verified: str | None = None
    """Labels that people have verified: `review` for what they decided in `rayclean review`, or a CSV or Parquet file
    of `key`, `label` (a class, or `drop`) and `shard` where keys repeat. They stand in the table as they are and
    calibrate the rest. Write names: numbers go by the order of `data.classes`."""
    verified_classes: Annotated[list[str] | str | None, BeforeValidator(_texts)] = None
    """How the classes of the review's logs are called now, in the order of then, where that cannot be told: names, a
    file with one name per line, or `same` for those of `data.classes`, place by place."""
    threshold: Share = 0.5
    """Rows with a `label_score` below it are flagged (`is_label_issue`)."""
    sample_rows: Positive = 100_000
    """Rows that mixtures and joint model are fitted to; seeded. The joint model takes fewer past 335 classes."""


class Pool(Section):
    """A pool of workers. What is left out is chosen by device and by the nodes' sizes."""

    cpus: float | None = Field(default=None, gt=0)
    """CPUs of each worker. More for `gpu` where decoding images holds the GPU up."""
    gpus: float | None = Field(default=None, ge=0)
    """GPUs of each worker; a part of one where several share it."""
    actors: Positive | None = None
    """Workers at most."""


class ResourcesSection(Section):
    """The workers of a run; without a line here they follow from the machine or cluster."""

    cpu: Pool = Pool()
    """Actors for all that needs no GPU."""
    gpu: Pool = Pool()
    """Actors that run networks and search vectors; the same pool as `cpu` where no node has a GPU."""
    train: Pool = Pool()
    """Workers of training (Ray Train); `train.workers` says how many, not `actors`."""

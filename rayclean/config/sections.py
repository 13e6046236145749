"""One frozen model a section of the config; unknown fields and numbers that are none are refused."""

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

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


class RunSection(Section):
    """Where the run lies, what it keeps, and what computes it.

    `executor`: `actors` of Ray that live as long as the run; `data`, Ray Data, a dataset a round; `inline`, this
    process alone, without Ray, for small runs: its training cannot be resumed in the middle.
    """

    dir: Annotated[str, AfterValidator(_a_folder)]
    seed: int = Field(default=0, ge=0, lt=2**63)
    keep: Literal["default", "all"] = "default"
    mix_environments: bool = False
    executor: Literal["actors", "data", "inline"] = "actors"


class DataSection(Section):
    """The shards and how to read a sample.

    `group`: where a video frame says which clip it is of; clips get a table of their own. `group_by`: a clip's `osm`
    and `osd` are the means of its frames' (`scores`), or come from its mean `gradient`.
    `features`: those that are there already, instead of a network: a member of each sample by its extension (`npy`,
    `emb.npy`, `npz`), `file:PATTERN` of Parquet files (columns `key`, `features` or `embedding`, and `shard` where
    keys repeat across shards), or `clip-retrieval:FOLDER`. With them `image: none` means that there are no images.
    `label`: the extension of a text member, `json:path.to.field`, or `folder`, the name of the folder that a sample
    lies in; `label_offset` is subtracted from numbers: 1 where they count from 1.
    """

    shards: str | list[str]
    image: str = "png;jpg;jpeg;webp;jpe;jfif"
    features: str | None = None
    label: str = "cls"
    label_offset: int = Field(default=0, ge=-(2**31), le=2**31)
    truth: str | None = None
    group: str | None = None
    group_by: Literal["scores", "gradient"] = "scores"
    classes: Annotated[int | list[str] | str, BeforeValidator(_texts), AfterValidator(_not_too_many)]
    size: Positive | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[PositiveNumber, PositiveNumber, PositiveNumber] | None = None
    max_pixels: PositiveNumber = 50e6
    max_scans: Positive = 100
    max_bad_share: Share = 0.01
    cache_bytes: int = Field(default=4 * 2**30, ge=0)
    node_cache_bytes: int = Field(default=4 * 2**30, ge=0)
    shuffle_rows: Positive = 10_000

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
    """Noise made on purpose: the labels of the shards are taken as the truth (docs/methods.md, section 9).

    What `kind` and `imbalance` may be stands in `rayclean.config.noise_kinds`, and what plug-ins have registered.
    Rows that `data.truth` says are of none of the classes (-1) keep their labels, and that truth.
    """

    kind: Annotated[str, AfterValidator(NOISE_KINDS.check)] | None = None
    rate: Share | None = None
    rates: list[Share] | None = None
    matrix: list[list[Share]] | None = None
    imbalance: Annotated[str, AfterValidator(IMBALANCES.check)] | None = None
    ratio: float = Field(default=10.0, ge=1)
    classes: list[int] | None = None

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
    """The network; `size`: of the images that it sees, where not `data.size`.

    `frozen`: it is not trained but looks once at each image, and all else is learned from its features. Without
    `weights` it has those that timm (of the name's tag), torchvision or `lite` are published with.
    """

    name: str = "small_resnet"
    width: Positive = 16
    weights: str | None = None
    bottleneck: Positive | None = None
    size: Positive | None = None
    frozen: bool = False


class ScoreSection(Section):
    """How the network is run when it scores."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    batch_size: Positive = 64


class NeighborsSection(Section):
    """The neighbour search."""

    pool: Positive | None = None
    recall_target: Share = 0.95
    # Rows searched at once from which IVF, its making included, takes about a third of flat search; below it
    # seconds are saved at most, and flat is exact. Measured: docs/results/neighbors.md.
    ivf_rows: Positive = 20_000
    # Rows of any label that vote. More are better where noise is spread evenly: docs/results/scores.md.
    vote_num: Positive = 30
    # Snapshots whose neighbours vote, beside the last one: for the curve of `vote` over epochs.
    vote_epochs: list[Positive] = []


class IofmSection(Section):
    """IOFM: L neighbours with the same label, paths of H steps.

    The paper has L = 10 and H = 3: three times as many forwards, which gain .002 at most (docs/results/paths.md).
    """

    num: Positive = 6
    steps: int = Field(default=2, ge=2)


class InnSection(Section):
    """INN: L neighbours of any label, near by the features of another network, paths of H steps.

    `features`: a role, `self` for the scoring network's own, or `file:PATH` for those that another tool computed.
    `epochs`: snapshots that are scored, the last one alone by default; the score is that of the last of them.
    `end_points: false` with `steps: 2` is the midpoint score. The paper has L = 10 and H = 10.
    """

    num: Positive = 6
    steps: int = Field(default=2, ge=2)
    features: str = "ce"
    epochs: list[Positive] | None = None
    end_points: bool = True

    @property
    def file(self) -> str | None:
        """The file of features, where `features` names one."""
        kind, colon, path = self.features.partition(":")
        return path if kind == "file" and colon else None


class InfluenceSection(Section):
    """Influential Rank's OSM and OSD on the last layer.

    `validation`: shards of verified samples, or `split` for a fixed seeded part of the data that is then neither
    trained on nor scored; `validation_num` a class are used, with the labels that `validation_label` names, else the
    given ones; never with `data.truth`. `gamma`: classes that must agree, a count or a share.
    `epochs`: snapshots beside the last one, for the curves of `osm` and `osd`; the scores are those of the last.
    """

    role: str = "main"
    damping: float = Field(default=0.01, gt=0)
    hessian_rows: Positive = 10_000
    probes: Positive = 200
    validation: str | list[str] | None = None
    validation_label: str | None = None
    validation_num: Positive = 5
    gamma: Annotated[int, Field(ge=0)] | Share = 0.8
    standardize: Literal["samples", "classes"] = "samples"
    epochs: list[Positive] = []

    @property
    def held_out(self) -> int:
        """Rows of each class that are kept apart."""
        return self.validation_num if self.validation == "split" else 0


class SimulatedLossSection(Section):
    """ODD: the loss that uniformly random labels would have, simulated from the last layer.

    `epoch`: a whole number, or a share of the role's epochs; its weights are always kept. `average`: epochs up to it
    whose mean loss is judged. `planted`: share of rows whose label is drawn uniformly in role `plant`, where
    `train.roles` names it: their losses tell whether the simulation holds.
    """

    role: str = "main"
    epoch: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)] = 0.375
    percentile: float = Field(default=10.0, ge=0, le=100)
    average: Positive = 3
    kind: Literal["gauss", "gauss_pooled", "empirical"] = "gauss"
    planted: Annotated[float, Field(gt=0, le=0.5)] = 0.05

    def epoch_of(self, num_epochs: int) -> int:
        """E, 1..num_epochs: a share is rounded half up, to at least 1; .375 of 40 epochs is 15."""
        return self.epoch if isinstance(self.epoch, int) else max(int(self.epoch * num_epochs + 0.5), 1)


class BlocksSection(Section):
    """Sizes of the units; part of every fingerprint that they touch."""

    rows: Positive = 4000
    pairs: Positive = 4096
    index_rows: Positive = 100_000
    table_rows: Positive = 1_000_000


class MergeSection(Section):
    """Which score becomes a probability, and where the cut lies.

    `score`: `joint` (also `auto`) for one probability from all beliefs, or one score for its mixture alone.
    `verified`: a CSV or Parquet file of labels that people have verified: columns `key`, `label`, and `shard` where
    keys repeat; or `review`, for what people decided in `rayclean review`. They stand in the table as they are and
    calibrate the rest.
    `verified_classes`: how the classes of the review's logs are called now, in the order of then, where that cannot be
    told: names, a file with one name a line, or `same` for those of `data.classes` place by place.
    """

    score: str = "auto"
    verified: str | None = None
    verified_classes: Annotated[list[str] | str | None, BeforeValidator(_texts)] = None
    threshold: Share = 0.5
    sample_rows: Positive = 100_000


class Pool(Section):
    """Resources of one pool of workers; what is left out is chosen by device."""

    cpus: float | None = Field(default=None, gt=0)
    gpus: float | None = Field(default=None, ge=0)
    actors: Positive | None = None


class ResourcesSection(Section):
    """Workers of training, actors that run networks and search vectors where there are GPUs, actors for all else."""

    cpu: Pool = Pool()
    gpu: Pool = Pool()
    train: Pool = Pool()

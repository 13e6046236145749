"""The runs whose tables `same_bytes.py` compares: small data, one config each, and where the run is at work.

All but `every-score` score with the same weights, a network that was trained once on the digits. `every-score` trains
five small networks in each revision, since scores over epochs need their trajectories; on one machine that gives the
same bits, on two machines it need not.
"""

from __future__ import annotations

import csv
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from rayclean.shards.write import Sample, write_shards
from tools.data.make_digits import digit_samples

ROOT = Path(__file__).parents[2]
Tree = dict[str, Any]
NUM_FRAMES, NUM_PHOTOS, FRAMES_OF_A_CLIP, NUM_VERIFIED = 900, 400, 3, 60
VERIFIED = "verified.csv"
CIFAR10N = "RAYCLEAN_CIFAR10N"
# Written out, not read from the package: the same list must be meant by both revisions.
EVERY_SCORE = (
    *("loss", "ens_loss", "margin", "aum", "wrong_events"),
    *("iofm", "iofm_last", "inn", "vote", "osm", "osd", "aum_excess", "odd"),
    *(f"{name}_{role}" for role in ("ce", "ce_ne") for name in ("loss", "ens_loss", "margin", "aum", "wrong_events")),
)


def write_digits(folder: Path) -> None:
    """The demo's 1,797 digits in four shards, three labels in ten moved."""
    write_shards(str(folder), "digits", digit_samples(0.3, 0), 450)


def write_frames(folder: Path) -> None:
    """Digits as frames: clips of three of the same true class, also across shards; some of them verified."""

    def facts(sample: Sample) -> dict[str, Any]:
        return dict(json.loads(sample[1]["json"]))

    ordered = sorted(digit_samples(0.3, 0), key=lambda sample: (int(sample[0]) // 300, facts(sample)["truth"]))
    frames = []
    for index, (key, members) in enumerate(ordered[:NUM_FRAMES]):
        told = {**facts((key, members)), "clip": f"clip {index // FRAMES_OF_A_CLIP}"}
        frames.append((key, {**members, "json": json.dumps(told).encode()}))
    write_shards(str(folder), "frames", frames, 400)
    with open(folder / VERIFIED, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "label"])
        writer.writerows([frame[0], facts(frame)["truth"]] for frame in frames[:: NUM_FRAMES // NUM_VERIFIED])


def write_photos(folder: Path) -> None:
    """The first rows of CIFAR-10N in two shards.

    Raises:
        SystemExit: its shards are not there.
    """
    named = os.environ.get(CIFAR10N)
    source = Path(named) if named else ROOT.parent / "shared/data/cifar10n"
    shards = sorted(source.glob("cifar10n-train-*.tar"))
    if not shards:
        raise SystemExit(
            f"every-score: no cifar10n-train-*.tar in {source}; say where they lie by {CIFAR10N} "
            "(rayclean convert cifarn writes them), or leave the case out by --cases"
        )
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(shards[0]) as tar:
        for member in islice(tar, 2 * NUM_PHOTOS):
            key, _, extension = member.name.partition(".")
            content = tar.extractfile(member)
            assert content is not None
            samples.setdefault(key, {})[extension] = content.read()
    write_shards(str(folder), "photos", samples.items(), NUM_PHOTOS // 2)


DATA: dict[str, Callable[[Path], None]] = {"digits": write_digits, "frames": write_frames, "photos": write_photos}


def base(data: Path) -> Tree:
    """What all configs have: blocks so small that each stage has several units, and no choice left to the device."""
    return {
        "data": {"shards": f"{data}/*.tar", "label": "json:label", "truth": "json:truth", "classes": 10, "size": 16},
        "model": {"name": "small_resnet", "width": 8},
        "train": {"precision": "float32"},
        "score": {"precision": "float32", "batch_size": 64},
        "neighbors": {"vote_num": 20},
        "iofm": {"num": 4, "steps": 2},
        "inn": {"num": 4, "steps": 3, "features": "self"},
        "blocks": {"rows": 500, "pairs": 1500, "index_rows": 600, "table_rows": 1000},
    }


def joined(tree: Tree, changes: Tree) -> Tree:
    """A config with fields of its sections replaced."""
    merged = {
        name: {**tree.get(name, {}), **value} if isinstance(value, dict) else value for name, value in changes.items()
    }
    return {**tree, **merged}


def training(data: Path) -> Tree:
    """How the weights are made that both revisions score with."""
    train = {"loss": "mixup", "epochs": 6, "snapshot_every": 6, "augment": "none", "batch_size": 64}
    return joined(base(data), {"train": train, "scores": ["loss"]})


@dataclass(frozen=True)
class Case:
    """One pair of runs.

    Attributes:
        name: for `--cases`.
        data: whose shards, see `DATA`.
        changes: of the config's base; `{data}` in a text is the folder of the shards.
        trains: whether the run trains its own networks instead of scoring with the weights.
        where: what the run is at work on.
    """

    name: str
    data: str
    changes: Tree = field(default_factory=dict)
    trains: bool = False
    where: Literal["this machine", "two nodes", "object store"] = "this machine"

    def config(self, data: Path, weights: Path | None) -> Tree:
        """The config, but for `run.dir`."""
        changes = json.loads(json.dumps(self.changes).replace("{data}", str(data)))
        scored = {} if weights is None else {"train": {"epochs": 0, "from": str(weights)}}
        return joined(joined(base(data), scored), changes)


SCORED = ["loss", "margin", "iofm", "iofm_last", "inn", "vote", "osm"]
_every_score: Tree = {
    "data": {"truth": "json:clean_label", "size": 32},
    "model": {"width": 4},
    "train": {
        "loss": "mixup",
        "epochs": 4,
        "snapshot_every": 2,
        "batch_size": 64,
        "roles": {"ce": {}, "ce_ne": {}},
    },
    "neighbors": {"vote_num": 10, "vote_epochs": [2]},
    "inn": {"features": "ce", "epochs": [2, 4]},
    "influence": {
        "validation": "split",
        "validation_label": "json:clean_label",
        "validation_num": 3,
        "epochs": [2],
    },
    "blocks": {"rows": 100, "pairs": 400, "index_rows": 150, "table_rows": 200},
    "scores": list(EVERY_SCORE),
}
_clips: Tree = {
    "data": {"group": "json:clip", "group_by": "gradient"},
    "merge": {"verified": f"{{data}}/{VERIFIED}"},
    "scores": ["loss", "iofm", "iofm_last", "vote", "osm"],
}
_step: Tree = {
    "data": {"label": "json:truth", "truth": None},
    "noise": {"kind": "symmetric", "rate": 0.3, "imbalance": "step", "ratio": 5},
    "merge": {"score": "iofm"},
    "scores": ["loss", "margin", "iofm", "iofm_last", "vote"],
}
_few: Tree = {"scores": ["loss", "iofm", "iofm_last", "vote"]}
CASES = {
    case.name: case
    for case in (
        # Past `ivf_rows` a search goes by cells: votes do here, lists of one label do not.
        Case("digits", "digits", {"neighbors": {"ivf_rows": 1000}, "scores": SCORED}),
        Case("every-score", "photos", _every_score, trains=True),
        Case("clips", "frames", _clips),
        Case("step", "digits", _step),
        Case("two-nodes", "digits", _few, where="two nodes"),
        Case("object-store", "digits", _few, where="object store"),
    )
}

"""A config from few answers and a first look at the shards."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

from rayclean.catalog.labels import ClassList, LabelField
from rayclean.config import Config, DataSection, parse_config, parse_yaml
from rayclean.config.features_text import MEMBERS, parse_features
from rayclean.errors import ConfigError, RaycleanError
from rayclean.inspect.first_look import FirstLook, Place
from rayclean.shards.decode import BadSample

FROZEN, THERE, NOTHING = "frozen", "features", "nothing"  # where a run's features come from
CLASSES_FILE = "classes.txt"  # that converters write beside the shards
SHOWN_NAMES = 8
MOST_NAMES = 200  # that a config lists; more are a file
# By the package that a pretrained network needs, the better ones first; what the package itself needs comes last.
_PRETRAINED = (
    ("timm", {"name": "timm:vit_small_patch14_dinov2.lvd142m", "size": 224}),
    ("efficientnet_lite_pytorch", {"name": "lite"}),
    ("torchvision", {"name": "resnet50"}),
)
Classes = int | list[str] | str


@dataclass(frozen=True)
class Answers:
    """What a config is made of.

    Attributes:
        shards: `data.shards`.
        label: `data.label`.
        classes: `data.classes`.
        offset: `data.label_offset`.
        network: `FROZEN`, `THERE`, `NOTHING`, or what `data.features` is to be.
        model: the name of a network; None for the one that fits.
        run_dir: `run.dir`.
    """

    shards: str
    label: str
    classes: Classes
    offset: int
    network: str
    model: str | None
    run_dir: str


def propose_classes(look: FirstLook, place: Place | None) -> Classes | None:
    """Classes that fit what is written at a place; None where it does not tell.

    A file of classes beside the shards comes first. Numbers tell how many classes there are only as far as they were
    seen.
    """
    if place is None:
        return None
    beside = os.path.join(os.path.dirname(look.shards[0]), CLASSES_FILE)
    if "://" not in beside and os.path.isfile(beside) and _all_fit(beside, place):
        return beside
    if not place.has_numbers:
        return sorted(map(str, place.counts)) if len(place.counts) <= MOST_NAMES else None
    if min(place.numbers) < 0:
        return None
    return max(place.numbers) + (0 if _from_one(place) else 1)


def offset_of(place: Place | None, classes: Classes) -> int:
    """`data.label_offset`: 1 where as many numbers as classes were seen, from 1 on and without a gap."""
    if place is None or not place.has_numbers or not _from_one(place):
        return 0
    return int(ClassList.load(classes).num_classes == max(place.numbers))


def _from_one(place: Place) -> bool:
    return sorted(place.numbers) == list(range(1, len(place.counts) + 1))


def _all_fit(path: str, place: Place) -> bool:
    try:
        known = ClassList.load(path, offset=offset_of(place, path))
        for value in place.counts:
            known.index_of(value)
    except (RaycleanError, BadSample):
        return False
    return True


def shown(classes: Classes) -> str:
    """Classes in a line: a count, a path, or the first names of many."""
    if not isinstance(classes, list):
        return str(classes)
    more = f", ... ({len(classes)} in all)" if len(classes) > SHOWN_NAMES else ""
    return ", ".join(classes[:SHOWN_NAMES]) + more


def parse_classes(text: str) -> Classes:
    """A count, names with commas between them, or the path of a file of names.

    Raises:
        ConfigError: none of these.
    """
    text = text.strip()
    classes: Classes = int(text) if text.isdecimal() else text
    if isinstance(classes, str) and "," in classes:
        classes = [name.strip() for name in classes.split(",")]
    ClassList.load(classes)
    return classes


def parse_label(text: str) -> str:
    """Where labels lie, as `data.label` says it.

    Raises:
        ConfigError: it says it otherwise.
    """
    LabelField.parse(text)
    return text.strip()


def propose_network(look: FirstLook) -> str:
    """Features that are there, else a pretrained network."""
    return THERE if look.features else FROZEN


def network_reader(look: FirstLook) -> Callable[[str], str]:
    """What reads where features come from, and refuses what these shards do not have."""

    def read(text: str) -> str:
        name = text.strip()
        if name not in (FROZEN, THERE, NOTHING):
            try:
                parse_features(name)
            except ValueError as e:
                raise ConfigError(f"network {name!r}: expected {FROZEN}, {THERE} or {NOTHING}; or: {e}") from e
        elif name == THERE and look.features is None:
            found = ", ".join(sorted(look.extensions))
            raise ConfigError(
                f"network {THERE}: no member of the samples ends in {' or '.join(MEMBERS)} (found: {found}); where "
                "they lie beside the shards, say file:PATTERN of Parquet files or clip-retrieval:FOLDER"
            )
        elif name != THERE and not look.images:
            raise ConfigError(
                f"network {name}: the samples have no images (found: {', '.join(sorted(look.extensions))})"
            )
        return name

    return read


def draft(answers: Answers, look: FirstLook) -> tuple[str, Config]:
    """The text of a config, and what it says.

    Raises:
        ConfigError: the answers do not go together.
    """
    data: dict[str, Any] = {"shards": answers.shards, "label": answers.label, "classes": answers.classes}
    if answers.offset:
        data["label_offset"] = answers.offset
    known = str(DataSection.model_fields["image"].default).split(";")
    if not look.images:
        data["image"] = "none"
    elif not set(look.images) & set(known):
        data["image"] = ";".join(look.images)
    tree: dict[str, Any] = {"run": {"dir": answers.run_dir}, "data": data}
    if answers.network in (FROZEN, NOTHING):
        model = _pretrained() if answers.network == FROZEN else {}
        model = model if answers.model is None else {"name": answers.model}
        tree |= {"model": model | {"frozen": True}} if answers.network == FROZEN else {"model": model} if model else {}
    elif answers.model is not None:
        raise ConfigError(f"model {answers.model}: no network looks at features that are there; leave one of them out")
    else:
        data["features"] = look.features if answers.network == THERE else answers.network
    text = _head(look) + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120)
    sections, lines = parse_yaml(text.encode(), "init")
    return text, parse_config(sections, "init", lines)


def _pretrained() -> dict[str, Any]:
    found = (model for package, model in _PRETRAINED if importlib.util.find_spec(package) is not None)
    return dict(next(found, _PRETRAINED[-1][1]))


def _head(look: FirstLook) -> str:
    counted = ", ".join(f".{name} {count:,}" for name, count in sorted(look.extensions.items()))
    return (
        f"# Written by `rayclean init`, which looked at {look.num_samples:,} samples of {len(look.shards):,} shards:\n"
        f"# {json.dumps(counted)[1:-1]}\n"
        "# All other fields have defaults: `rayclean fields` lists them.\n"
    )

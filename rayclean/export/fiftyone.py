"""Doubtful rows as a folder that FiftyOne imports: `data/` with the pictures, `samples.json`, `metadata.json`.

It is `fiftyone.types.FiftyOneDataset` in the form that names no version of FiftyOne, which every version imports; the
form that FiftyOne writes holds the schema of its own database at one version.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rayclean.export.files import publish_file
from rayclean.export.views import View, find_doubtful, made_of, name_of, show
from rayclean.export.work import Made, Work
from rayclean.schema import NONE_NAME

SAMPLES, METADATA, PICTURES = "samples.json", "metadata.json", "data"
GIVEN = "ground_truth"
# Of a line; label fields and lists of neighbours have forms of their own.
_SCALARS = ("row", "shard", "key", "label_score", "is_label_issue", "few_neighbors", "duplicate_of")


def make_fiftyone(work: Work) -> Made:
    """`fiftyone`: doubtful rows as a FiftyOne data set."""
    found = find_doubtful(work.chosen, work.options.view_rows)
    shown = show(work, found, PICTURES, lambda view: sample(view, work.names))
    files = [
        publish_file(work.out, SAMPLES, samples_file(shown.entries)),
        publish_file(work.out, METADATA, metadata_file(work.names, work.chosen.table.merge)),
    ]
    made = made_of(work, found, files, PICTURES, shown)
    made.notes.append(
        "Open it by `fiftyone.Dataset.from_dir(FOLDER, dataset_type=fiftyone.types.FiftyOneDataset)`. `ground_truth` "
        "is the given label, `predicted` the most likely true class with its probability, `verified` what people say; "
        "the tag is the kind of issue."
    )
    return made


def sample(view: View, names: Sequence[str]) -> dict[str, Any]:
    """A sample as FiftyOne reads it.

    Args:
        view: the row.
        names: of the classes, by label.
    """
    line = view.line
    verified = line["verified_label"]
    fields = {name: line[name] for name in _SCALARS}
    fields |= {name: value for name, value in line.items() if name.startswith(("score_", "odd_", "osd_"))}
    labels = {
        GIVEN: classification(names[line["given_label"]]),
        "predicted": classification(name_of(line["predicted_label"], names), line["predicted_score"]),
    }
    if verified is not None:
        labels["verified"] = classification(name_of(verified, names))
    tags = [line["issue_kind"]] if line["issue_kind"] else []
    return {"filepath": f"{PICTURES}/{view.file}", "tags": tags, **labels, **fields}


def classification(label: str | None, confidence: float | None = None) -> dict[str, Any]:
    """A label of FiftyOne."""
    found: dict[str, Any] = {"_cls": "Classification", "label": label}
    return found if confidence is None else found | {"confidence": confidence}


def samples_file(samples: Iterable[dict[str, Any]]) -> bytes:
    """`samples.json`."""
    return (json.dumps({"samples": list(samples)}, indent=1) + "\n").encode()


def metadata_file(names: Sequence[str], merge: str) -> bytes:
    """`metadata.json`."""
    fields = (GIVEN, "predicted", "verified")
    facts = {
        "media_type": "image",
        "classes": {field: list(names) if field == GIVEN else [*names, NONE_NAME] for field in fields},
        "default_classes": list(names),
        "info": {"made_by": "rayclean", "merge": merge, "classes": list(names)},
    }
    return (json.dumps(facts, indent=1) + "\n").encode()

"""Makes a finished merge the run's table: its files are put beside what is there, then the manifest names them."""

from __future__ import annotations

import random
import re
import time
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.catalog.table import CONTENT, STRAYS
from rayclean.errors import DamagedFile, LostFile, StageError
from rayclean.merge.clips_stage import ClipsJob
from rayclean.merge.joint import JointModel
from rayclean.merge.models import Fitted
from rayclean.merge.stage import MODEL, ApplyJob
from rayclean.schema import CLASS_SCHEMA, NONE_OF_CLASSES, Array
from rayclean.storage.checksums import check_table
from rayclean.storage.contents import encode, map_arrays, read_json, read_table
from rayclean.storage.damage import ASIDE
from rayclean.storage.published import (
    CLASSES,
    CLIPS,
    EARLIER_MANIFEST,
    LABELS,
    MANIFEST,
    PART,
    SUMMARY,
    TABLES,
    Published,
    TableFile,
    whole_table,
)
from rayclean.storage.store import Store

# What runs of this release and earlier ones put into the two folders; all else is somebody else's.
_OURS = re.compile(
    rf"({PART}|{CLIPS}|{CLASSES}|{SUMMARY})(-[0-9a-f]{{8}})?(-[0-9]{{5,}})?\.(parquet|json)({re.escape(ASIDE)})?"
)
MAX_RIVALS = 6
PAUSE_S = 0.05


def publish_labels(
    job: ApplyJob, class_names: list[str], clips: ClipsJob | None = None, lease: int = 0
) -> dict[str, Any]:
    """Makes `labels/` and `tables/` the result of a finished merge; does nothing where they are that already.

    Files are named by the merge that they come from and put beside those that are there; then one file, the manifest,
    names them, and what it does not name is removed. A driver that publishes another merge meanwhile may remove ours,
    so a table that is still ours is looked at again in the end.

    Args:
        job: has the parts of the table.
        class_names: by label.
        clips: has those of the table of clips, where rows are frames.
        lease: number of the lease by which this driver holds the run.

    Returns:
        The summary: rows, issues, estimated noise rate, whether the mixture is reliable, quarantine.

    Raises:
        StageError: another driver publishes at the same time.
        DamagedFile: a file of the merge is not what was written.
    """
    store, mine = job.store, False
    for rival in range(MAX_RIVALS):
        time.sleep(rival * random.uniform(0, PAUSE_S))  # two that go on in step would undo each other's work for ever
        # Another driver may take its table's place, or what it sees of ours for stale, at any time.
        with suppress(DamagedFile):
            if (table := _current(store, job.folder)) is not None:
                _remove_stale(store)
                return table.summary()
            if mine and (merge := Published.open(store).merge) != job.folder:
                raise StageError(f"{store.root}/{LABELS}: another driver published {merge} meanwhile; its table stands")
        store.publish(MANIFEST, _put(job, class_names, clips, lease).encode())
        mine = True
        _remove_stale(store)
    raise StageError(f"{store.root}/{LABELS} does not stay as it is published; is another driver at work on this run?")


def _current(store: Store, merge: str) -> Published | None:
    """The table that is there, where it is of this merge and whole, and its manifest is where this release has it."""
    table = whole_table(store) if store.exists(MANIFEST) else None
    return table if table is not None and table.merge == merge else None


def _put(job: ApplyJob, class_names: list[str], clips: ClipsJob | None, lease: int) -> Published:
    """Puts the files of a table beside what is there."""
    store, mark = job.store, job.folder.partition("-")[2]
    files = [_copy(store, job.file(unit), f"{LABELS}/{_marked(unit, mark)}.parquet") for unit in job.units()]
    if clips is not None:
        files += [_copy(store, clips.file(unit), f"{TABLES}/{_marked(unit, mark)}.parquet") for unit in clips.units()]
    classes, summary = summarise(job, class_names)
    if clips is not None:
        summary["clip_issues"] = _count_issues(clips)
    for name, content in ((f"{CLASSES}-{mark}.parquet", classes), (f"{SUMMARY}-{mark}.json", summary)):
        data = encode(name, content, "{}")
        store.publish(f"{TABLES}/{name}", data)
        files.append(TableFile.of(f"{TABLES}/{name}", data))
    return Published(store, job.folder, tuple(class_names), lease, tuple(files))


def _marked(unit: str, mark: str) -> str:
    """`part-00000` with the merge's fingerprint: `part-<mark>-00000`."""
    kind, _, number = unit.partition("-")
    return f"{kind}-{mark}-{number}"


def _copy(store: Store, source: str, target: str) -> TableFile:
    try:
        data = store.map(source)
    except FileNotFoundError as e:
        raise LostFile(store.full(source)) from e
    check_table(data, store.full(source))
    store.publish(target, data)
    return TableFile.of(target, data)


def _remove_stale(store: Store) -> None:
    """Removes files of other tables, each only while the manifest does not name it; and an earlier manifest."""
    for folder in (LABELS, TABLES):
        for name in store.list(folder):
            path = f"{folder}/{name}"
            if path == EARLIER_MANIFEST or (_OURS.fullmatch(name) and path not in _named(store)):
                store.remove(path)


def _named(store: Store) -> set[str]:
    return {TableFile.from_json(file).path for file in read_json(store, MANIFEST)["files"]}


def _count_issues(clips: ClipsJob) -> int:
    tables = (read_table(clips.store, clips.file(unit), ["is_label_issue"]) for unit in clips.units())
    return sum(pc.sum(table["is_label_issue"]).as_py() for table in tables)


def _most_common(moved: Array) -> Array:
    """(K,) labels that most flagged rows of a class are predicted to have; the last column is none of the classes."""
    most = moved.argmax(axis=1)
    return np.where(most == len(moved), NONE_OF_CLASSES, most)


def summarise(job: ApplyJob, class_names: list[str]) -> tuple[pa.Table, dict[str, Any]]:
    """The table of classes and the summary, from the counts beside the parts."""
    parts = [map_arrays(job.store, f"{job.folder}/classes-{unit}.safetensors") for unit in job.units()]
    rows = np.sum([part["rows"] for part in parts], axis=0)
    wrong = np.sum([part["wrong"] for part in parts], axis=0)
    moved = np.sum([part["moved"] for part in parts], axis=0)
    fitted = Fitted.from_json(read_json(job.store, f"{job.folder}/{MODEL}.json"))
    model, joint = fitted.model, fitted.model if isinstance(fitted.model, JointModel) else None
    true = np.sum([part["true"] for part in parts], axis=0) if joint is not None else None
    prior, transition = _how_labels_go_wrong(true, model.reliable)
    classes = pa.table(
        {
            "label": np.arange(len(rows), dtype=np.int32),
            "name": class_names,
            "rows": rows,
            "issues": moved.sum(axis=1),
            "noise_rate": pa.array(wrong / np.maximum(rows, 1), mask=rows == 0),
            "predicted": pa.array(_most_common(moved), pa.int32(), mask=moved.sum(axis=1) == 0),
            "prior": pa.array([None] * len(rows) if prior is None else prior, pa.float64()),
            "transition": pa.array([None] * len(rows) if transition is None else transition, pa.list_(pa.float64())),
        },
        schema=CLASS_SCHEMA,
    )
    rate = float(wrong.sum() / max(rows.sum(), 1))
    low, high = fitted.noise_interval(rate)
    summary = {
        **{name: value for name, value in job.files.catalog.summary.items() if name not in (STRAYS, CONTENT)},
        "issues": int(moved.sum()),
        "noise_rate": rate,
        "noise_rate_low": low,
        "noise_rate_high": high,
        "merge_score": fitted.name,
        "belief_epoch": fitted.sources.epoch,
        "belief_roles": list(fitted.sources.roles),
        "verified": fitted.calibration.num_verified,
        "calibrated": fitted.calibrated_by,
        "reliable": model.reliable,
        "reason": model.reason,
    }
    if fitted.sources.blind:
        summary["belief_sources"] = [name for name, _ in fitted.sources.blind]
    if fitted.doubts:
        summary["doubts"] = dict(fitted.doubts)
    if prior is not None and transition is None:
        summary["transition_reason"] = model.reason
    return classes, summary


def _how_labels_go_wrong(true: Array | None, reliable: bool) -> tuple[Array | None, list[list[float]] | None]:
    """The classes' shares of the rows, and the transition matrix, as the table's own probabilities have them.

    A matrix that the model was fitted with need not: the lean, verified rows and calibration change what it leads to.
    A class that no row seems to be of keeps its labels. Where the model is not reliable there is no matrix.

    Args:
        true: (K + 1, K) rows truly of each class, none of them last, by given label; None but by the joint model.
        reliable: whether the model is.
    """
    if true is None:
        return None, None
    of_classes = true[:-1]
    sums = of_classes.sum(axis=1, keepdims=True)
    shares = np.where(sums > 0, of_classes / np.maximum(sums, 1e-300), np.eye(len(of_classes)))
    return sums[:, 0] / max(true.sum(), 1e-300), shares.tolist() if reliable else None

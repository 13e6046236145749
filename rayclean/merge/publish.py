"""`labels/`: the final table, put there from the merge's parts; its manifest is written last."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.errors import InputError
from rayclean.merge.clips_stage import ClipsJob
from rayclean.merge.joint import JointModel
from rayclean.merge.models import Fitted
from rayclean.merge.stage import MODEL, ApplyJob
from rayclean.schema import CLASS_SCHEMA
from rayclean.storage.contents import encode, map_arrays, read_json, read_table
from rayclean.storage.store import Store

LABELS = "labels"
MANIFEST = f"{LABELS}/_manifest.json"


def publish_labels(job: ApplyJob, class_names: list[str], clips: ClipsJob | None = None) -> dict[str, Any]:
    """Makes `labels/` the result of a finished merge; does nothing where it is that already.

    Args:
        job: has the parts of the table.
        class_names: by label.
        clips: has those of the table of clips, where rows are frames.

    Returns:
        The summary: rows, issues, estimated noise rate, whether the mixture is reliable, quarantine.
    """
    store = job.store
    if not _is_published(store, job.folder):
        store.remove(MANIFEST)
        for name in store.list(LABELS):
            store.remove(f"{LABELS}/{name}")
        parts = [each.file(unit) for each in (job, clips) if each is not None for unit in each.units()]
        entries = [_copy(store, part, f"{LABELS}/{part.split('/')[-1]}") for part in parts]
        classes, summary = _summarise(job, class_names)
        if clips is not None:
            summary["clip_issues"] = _count_issues(clips)
        for name, content in (("classes.parquet", classes), ("summary.json", summary)):
            data = encode(name, content, "{}")
            store.publish(f"{LABELS}/{name}", data)
            entries.append({"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
        manifest = {"merge": job.folder, "classes": class_names, "files": entries}
        store.publish(MANIFEST, encode(MANIFEST, manifest, "{}"))
    published: dict[str, Any] = read_json(store, f"{LABELS}/summary.json")
    return published


def _is_published(store: Store, folder: str) -> bool:
    if not store.exists(MANIFEST):
        return False
    manifest = read_json(store, MANIFEST)
    present = set(store.list(LABELS))
    return manifest["merge"] == folder and all(entry["name"] in present for entry in manifest["files"])


def _count_issues(clips: ClipsJob) -> int:
    tables = (read_table(clips.store, clips.file(unit), ["is_label_issue"]) for unit in clips.units())
    return sum(pc.sum(table["is_label_issue"]).as_py() for table in tables)


def _copy(store: Store, source: str, target: str) -> dict[str, Any]:
    data = store.map(source)
    store.publish(target, data)
    return {"name": target.split("/")[-1], "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _summarise(job: ApplyJob, class_names: list[str]) -> tuple[pa.Table, dict[str, Any]]:
    """`classes.parquet` and `summary.json` from the counts beside the parts."""
    parts = [map_arrays(job.store, f"{job.folder}/classes-{unit}.safetensors") for unit in job.units()]
    rows = np.sum([part["rows"] for part in parts], axis=0)
    wrong = np.sum([part["wrong"] for part in parts], axis=0)
    moved = np.sum([part["moved"] for part in parts], axis=0)
    fitted = Fitted.from_json(read_json(job.store, f"{job.folder}/{MODEL}.json"))
    model, joint = fitted.model, fitted.model if isinstance(fitted.model, JointModel) else None
    nothing = [None] * len(rows)
    classes = pa.table(
        {
            "label": np.arange(len(rows), dtype=np.int32),
            "name": class_names,
            "rows": rows,
            "issues": moved.sum(axis=1),
            "noise_rate": pa.array(wrong / np.maximum(rows, 1), mask=rows == 0),
            "predicted": pa.array(moved.argmax(axis=1), pa.int32(), mask=moved.sum(axis=1) == 0),
            "prior": pa.array(nothing if joint is None else joint.prior, pa.float64()),
            "transition": pa.array(nothing if joint is None else joint.transition.tolist(), pa.list_(pa.float64())),
        },
        schema=CLASS_SCHEMA,
    )
    summary = {
        **job.files.catalog.summary,
        "issues": int(moved.sum()),
        "noise_rate": float(wrong.sum() / max(rows.sum(), 1)),
        "merge_score": fitted.name,
        "belief_epoch": fitted.sources.epoch,
        "belief_roles": list(fitted.sources.roles),
        "verified": fitted.calibration.num_verified,
        "reliable": model.reliable,
        "reason": model.reason,
    }
    return classes, summary


def check_labels(store: Store) -> dict[str, Any]:
    """The manifest of a complete table: the merge it is of, the class names in order, the files.

    Raises:
        InputError: there is no table, or files of it are missing.
    """
    if not store.exists(MANIFEST):
        raise InputError(f"{store.root} holds no complete table (no {MANIFEST}); run `rayclean run` to its end")
    manifest: dict[str, Any] = read_json(store, MANIFEST)
    missing = {entry["name"] for entry in manifest["files"]} - set(store.list(LABELS))
    if missing:
        raise InputError(f"{store.root}/{LABELS} lacks {', '.join(sorted(missing))}; run `rayclean run` again")
    return manifest


def published_classes(store: Store) -> tuple[str, ...] | None:
    """The class names of the published table, by label; None while there is none that is complete."""
    try:
        manifest = check_labels(store)
    except InputError:
        return None
    if "classes" in manifest:
        return tuple(manifest["classes"])
    table = read_table(store, f"{LABELS}/classes.parquet", ["name"])  # an earlier release's
    return tuple(table["name"].to_pylist())

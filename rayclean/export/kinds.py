"""Each kind of export: what it writes below the output folder, and what its card says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from rayclean.catalog.labels import LabelField
from rayclean.config import DataSection
from rayclean.errors import RaycleanError
from rayclean.export import cleanlab, datacomp, fiftyone, labelstudio
from rayclean.export.choose import COLUMNS, Lines, Reason
from rayclean.export.croissant import Records, picture_records, sample_records, table_records
from rayclean.export.files import FileFacts, publish_file
from rayclean.export.lists import FOLDER, SCHEMAS, reasons_of, write_lists
from rayclean.export.options import ExportOptions
from rayclean.export.rows import Chosen
from rayclean.export.shards_job import ShardsJob
from rayclean.export.views import Doubtful, find_doubtful, views_of
from rayclean.storage.contents import read_json
from rayclean.storage.store import Store
from rayclean.storage.units import Job

FILTER_FILE = "uids.npy"
READ_AT_ONCE = 16
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """What a kind starts from.

    Attributes:
        chosen: which rows, with which labels.
        options: what was asked for.
        data: how the shards are read.
        source_names: of the shards' classes, by label.
        out: where the files go.
        folder: of unit marks, in the run.
        compute: does a job's missing units, in parallel.
        beliefs: the bytes of cleanlab's `pred_probs`; raises OSError or RaycleanError where the run has none.
    """

    chosen: Chosen
    options: ExportOptions
    data: DataSection
    source_names: tuple[str, ...]
    out: Store
    folder: str
    compute: Callable[[Job], None]
    beliefs: Callable[[], bytes]

    @property
    def names(self) -> list[str]:
        """Of the run's classes, by label."""
        return self.chosen.table.names


@dataclass
class Made:
    """What a kind has written.

    Attributes:
        exported: rows.
        reasons: of all rows of the table, how many have each.
        files: one by one, without pictures.
        facts: further numbers, for the summary.
        notes: for people, Markdown.
        records: what Croissant says of the contents.
        columns: of lists.
        data_files: pattern of what the Hub shows.
    """

    exported: int
    reasons: dict[str, int]
    files: list[FileFacts]
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    records: list[Records] = field(default_factory=list)
    columns: pa.Schema | None = None
    data_files: str | None = None


def make_list(work: Work, kind: str) -> Made:
    """`csv`, `parquet`, `cleanlab`: a line a row."""
    written = write_lists(work.chosen, kind, work.out)
    includes = f"{FOLDER}/*.{'csv' if kind == 'csv' else 'parquet'}"
    made = Made(written.listed, written.reasons, written.files, columns=SCHEMAS[kind], data_files=includes)
    made.records = [table_records(includes, SCHEMAS[kind])]
    if kind == "cleanlab":
        made.notes.append(_beliefs(work, made))
    return made


def _beliefs(work: Work, made: Made) -> str:
    why = cleanlab.why_no_beliefs(work.chosen.table.num_rows, len(work.names))
    if why is None and work.options.removed:
        why = "only some rows are listed"
    if why is None:
        try:
            made.files.append(publish_file(work.out, cleanlab.PRED_PROBS, work.beliefs()))
        except (OSError, RaycleanError) as error:
            why = f"the run does not have them any more ({error})"
    if why is not None:
        return f"There is no `{cleanlab.PRED_PROBS}`: {why}."
    return (
        f"`{cleanlab.PRED_PROBS}` has a line a row, in the list's order: what the networks believe of it without its "
        "own label as evidence. They were trained on these rows, so these are not the out-of-sample probabilities that "
        "cleanlab recommends."
    )


def make_shards(work: Work) -> Made:
    """`shards`: new shards with the chosen samples."""
    names = tuple(work.names)
    store = work.chosen.table.store
    label = LabelField.parse(work.data.label)
    job = ShardsJob(store, work.folder, work.out, work.chosen, label, names, work.source_names)
    work.compute(job)
    with ThreadPoolExecutor(READ_AT_ONCE) as threads:
        facts = list(threads.map(job.facts, job.units()))
    total = {name: sum(each[name] for each in facts) for name in ("samples", "relabelled", "quarantined", "left_out")}
    files = [FileFacts(each["name"], each["bytes"], each["sha256"]) for each in facts if each["samples"]]
    empty = [each["name"] for each in facts if not each["samples"]]
    made = Made(total["samples"], _reasons(work.chosen), files)
    made.facts = {
        "shards": len(files),
        "empty_shards": len(empty),
        **{name: total[name] for name in ("relabelled", "quarantined", "left_out")},
    }
    made.notes.append(
        f"{len(files):,} WebDataset shards, one a shard of the original and called alike. Members are the original's, "
        f"byte for byte; {total['relabelled']:,} samples have another label (`{work.data.label}`) than there."
    )
    if empty:
        shown = ", ".join(f"`{name}`" for name in empty[:10]) + (", ..." if len(empty) > 10 else "")
        made.notes.append(f"{len(empty):,} shards of which no sample is left are not there: {shown}.")
    if total["quarantined"] or total["left_out"]:
        made.notes.append(
            f"Not exported: {total['quarantined']:,} samples in quarantine, {total['left_out']:,} that the run left "
            "out on purpose."
        )
    made.data_files = "**/*.tar" if any("/" in file.name for file in files) else "*.tar"
    if files:
        made.records = sample_records(files, work.data.image_extensions, label.extension)
    return made


def make_datacomp(work: Work) -> Made:
    """`datacomp`: the filter file."""
    job = datacomp.UidsJob(work.chosen.table.store, work.folder, work.chosen)
    work.compute(job)
    data, num_uids = datacomp.filter_file(job)
    with ThreadPoolExecutor(READ_AT_ONCE) as threads:
        facts = list(threads.map(lambda unit: read_json(job.store, f"{job.folder}/{unit}.json"), job.units()))
    samples, made_uids = (sum(each[name] for each in facts) for name in ("samples", "made_uids"))
    made = Made(samples, _reasons(work.chosen), [publish_file(work.out, FILTER_FILE, data)])
    made.facts = {"uids": num_uids, "made_uids": made_uids}
    made.notes.append(
        f"`{FILTER_FILE}` has {num_uids:,} uids for DataComp's resharder: `python resharder.py -i SHARDS -o OUT -s "
        f"{FILTER_FILE}`. {samples - made_uids:,} samples have a uid of their own in their JSON; of {made_uids:,} it "
        "is the MD5 of `shard/key`, which the resharder does not know. A uid of several samples is there once."
    )
    return made


def make_fiftyone(work: Work) -> Made:
    """`fiftyone`: doubtful rows as a FiftyOne data set."""
    found = find_doubtful(work.chosen, work.options.view_rows)
    samples = []
    for view in views_of(work.chosen, found.rows, work.data.max_pixels):
        work.out.publish(f"{fiftyone.PICTURES}/{view.file}", view.image)
        samples.append(fiftyone.sample(view, work.names))
    ordered = _in_order(found, samples, lambda each: each["row"])
    files = [
        publish_file(work.out, fiftyone.SAMPLES, fiftyone.samples_file(ordered)),
        publish_file(work.out, fiftyone.METADATA, fiftyone.metadata_file(work.names, work.chosen.table.merge)),
    ]
    made = _view(work, found, files, fiftyone.PICTURES)
    made.notes.append(
        "Open it by `fiftyone.Dataset.from_dir(FOLDER, dataset_type=fiftyone.types.FiftyOneDataset)`. `ground_truth` "
        "is the given label, `predicted` the most likely true class with its probability, `verified` what people say; "
        "the tag is the kind of issue."
    )
    return made


def make_labelstudio(work: Work) -> Made:
    """`labelstudio`: doubtful rows as tasks."""
    found = find_doubtful(work.chosen, work.options.view_rows)
    tasks = []
    for view in views_of(work.chosen, found.rows, work.data.max_pixels):
        work.out.publish(f"{labelstudio.PICTURES}/{view.file}", view.image)
        tasks.append(labelstudio.task(view, work.names, work.chosen.table.merge))
    ordered = _in_order(found, tasks, lambda each: each["data"]["row"])
    files = [
        publish_file(work.out, labelstudio.TASKS, labelstudio.tasks_file(ordered)),
        publish_file(work.out, labelstudio.CONFIG, labelstudio.labeling_config(work.names)),
    ]
    made = _view(work, found, files, labelstudio.PICTURES)
    made.notes.append(
        "Start Label Studio with `LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true` and "
        "`LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT` set to this folder, make a project with `config.xml` as its labeling "
        "interface, add a source storage `Local files` with the absolute path of `images/` (without syncing it), then "
        "import `tasks.json`. Tasks sorted by the prediction's score begin with the least sure."
    )
    return made


def _view(work: Work, found: Doubtful, files: list[FileFacts], folder: str) -> Made:
    made = Made(len(found.rows), reasons_of(found.tallies), files)
    made.facts = {"doubtful": found.total}
    made.records = [picture_records("pictures", [f"{folder}/*"])]
    what = "that go" if work.options.removed else "that go or have a new label"
    made.notes.append(
        f"{len(found.rows):,} of {found.total:,} rows {what}, those first whose given label is least likely right; "
        f"their pictures are in `{folder}/`, as they lie in the shards."
    )
    return made


def _in_order(found: Doubtful, entries: Sequence[Any], row_of: Callable[[Any], int]) -> list[Any]:
    """Entries in the order of the doubtful rows; they were read in the order of the shards."""
    place = {row: index for index, row in enumerate(found.rows.tolist())}
    return sorted(entries, key=lambda each: place[row_of(each)])


def _reasons(chosen: Chosen) -> dict[str, int]:
    tallies = np.zeros(len(Reason), np.int64)
    for batch in chosen.table.batches(COLUMNS):
        tallies += chosen.rule.decide(Lines.of(batch)).tally()
    return reasons_of(tallies)

"""`shards`: new shards with the chosen samples, beside what their card says of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from rayclean.catalog.labels import LabelField
from rayclean.export.croissant import sample_records
from rayclean.export.files import READ_AT_ONCE, FileFacts
from rayclean.export.shards_job import ShardsJob
from rayclean.export.work import Made, Work


def make_shards(work: Work) -> Made:
    """`shards`: new shards with the chosen samples."""
    names = tuple(work.names)
    store = work.chosen.table.store
    label = LabelField.parse(work.data.label)
    job = ShardsJob(store, work.folder, work.out, work.chosen, label, names, work.source)
    work.compute(job)
    with ThreadPoolExecutor(READ_AT_ONCE) as threads:
        facts = list(threads.map(job.facts, job.units()))
    total = {name: sum(each[name] for each in facts) for name in ("samples", "relabelled", "quarantined", "left_out")}
    files = [FileFacts(each["name"], each["bytes"], each["sha256"]) for each in facts if each["samples"]]
    empty = [each["name"] for each in facts if not each["samples"]]
    made = Made(total["samples"], work.chosen.reasons(), files)
    made.facts = {
        "shards": len(files),
        "empty_shards": len(empty),
        **{name: total[name] for name in ("relabelled", "quarantined", "left_out")},
    }
    made.notes.append(
        f"{len(files):,} WebDataset shards, one per shard of the original and called alike. Members are the "
        f"original's, byte for byte; {total['relabelled']:,} samples have another label (`{work.data.label}`) "
        "than there."
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

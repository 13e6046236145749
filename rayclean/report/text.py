"""What the commands print."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from rayclean.config.score_families import score_of
from rayclean.evaluate.evaluate import Evaluation
from rayclean.evaluate.noise_words import rate_notes
from rayclean.inspect.plan import Plan, SearchPlan
from rayclean.inspect.plan_features import FeaturePlan
from rayclean.report.run_text import print_left
from rayclean.schema import NONE_OF_CLASSES
from rayclean.storage.amounts import duration, size
from rayclean.storage.published import Published
from rayclean.storage.store import Store

# How far the loss must fall below its best before `evaluate` says that labels were memorised.
MEMORISED = 0.1
MAX_COLUMNS = 16  # of curves; heads on few rows have many snapshots
AT_SNAPSHOTS = ("interpolation", "out_of_fold")  # families whose scores are not of every epoch
NOT_COUNTED = "no catalog yet: labels taken as equally large"


def print_summary(
    console: Console, root: str, summary: dict[str, Any], seconds: float, true_noise_rate: float | None
) -> None:
    """Where the table is and what it says; the true noise rate beside the estimate where it is known."""
    notes = "; ".join(rate_notes(summary, true_noise_rate))
    console.print(
        f"done in {seconds:.0f} s: {root}/labels (part-*.parquet; classes and summary in tables/)", markup=False
    )
    console.print(
        f"{summary['rows']:,} rows, {summary['issues']:,} flagged as wrong labels, "
        f"estimated noise rate {summary['noise_rate']:.3f} ({notes})"
    )
    if "clips" in summary:
        console.print(f"{summary['clips']:,} clips (clips-*.parquet), {summary['clip_issues']:,} flagged")
    if not summary["reliable"]:
        console.print(f"unreliable: {summary['reason']}; rank by label_score rather than trust its value", markup=False)
    print_left(console, summary)


def print_evaluation(console: Console, result: Evaluation) -> None:
    """AUROC of each score, best and final, and how good the table is."""
    table = Table("score", "best AUROC", "at epoch", "final AUROC", title="clean against wrong labels")
    for name, quality in result.scores.items():
        table.add_row(name, f"{quality.best:.3f}", str(quality.best_epoch), f"{quality.final:.3f}")
    table.add_row("label_score", "", "", f"{result.label_score['auroc']:.3f}", style="bold")
    console.print(table)
    right = result.predicted_right
    low, high = result.estimated_interval or (None, None)
    interval = "" if low is None else f" ({low:.3f} to {high:.3f})"
    console.print(
        f"noise rate: true {result.true_noise_rate:.3f}, estimated {result.estimated_noise_rate:.3f}{interval}"
    )
    console.print(
        f"predicted_label right: {right['all']:.3f} of all rows (given label: {right['given_right']:.3f}), "
        f"{right['truly_wrong']:.3f} of the truly wrong ones"
    )
    known = {name: value for name, value in result.label_score.items() if not math.isnan(value)}
    loss, iofm = result.scores.get("loss"), result.scores.get("iofm")
    if loss and iofm and loss.best - loss.final > MEMORISED:
        console.print(
            f"The network has memorised the wrong labels: loss fell from {loss.best:.3f} to {loss.final:.3f}, while "
            f"iofm, which looks between the samples, stands at {iofm.final:.3f}."
        )
    if result.clips:
        console.print("AUROC over clips: " + ", ".join(f"{name} {value:.3f}" for name, value in result.clips.items()))
    console.print("label_score: " + ", ".join(f"{name} {value:.3f}" for name, value in known.items()))


def print_curves(console: Console, result: Evaluation) -> None:
    """AUROC of each score at each snapshot, or at some of very many."""
    snapshots = [quality for name, quality in result.scores.items() if score_of(name).family in AT_SNAPSHOTS]
    found = sorted({epoch for quality in snapshots or result.scores.values() for epoch in quality.curve})
    epochs = found[::-1][:: -(-len(found) // MAX_COLUMNS) or 1][::-1]  # the last one always
    table = Table("score", *(str(epoch) for epoch in epochs), title="AUROC as of each snapshot's epoch")
    for name, quality in result.scores.items():
        table.add_row(name, *(f"{quality.curve[e]:.3f}" if e in quality.curve else "" for e in epochs))
    console.print(table)


def worst_rows(root: str, count: int) -> pa.Table:
    """The rows with the smallest label_score, worst first; ties by row."""
    table = Published.open(Store(root))
    columns = ["row", "shard", "key", "given_label", "predicted_label", "label_score"]
    worst: pa.Table | None = None
    for name in table.parts:
        part = table.read(name, columns)
        both = part if worst is None else pa.concat_tables([worst, part], promote_options="permissive")
        worst = both.sort_by([("label_score", "ascending"), ("row", "ascending")]).slice(0, count)
    return worst if worst is not None else pa.table({})


def print_worst(console: Console, root: str, count: int) -> None:
    """The worst rows with their predicted labels."""
    table = Table("shard", "key", "given", "predicted", "label_score", title=f"the {count} worst labels")
    for row in worst_rows(root, count).to_pylist():
        predicted = "none" if row["predicted_label"] == NONE_OF_CLASSES else row["predicted_label"]
        cells = (row["shard"], repr(row["key"]), row["given_label"], predicted)
        table.add_row(*(str(cell).replace("[", r"\[") for cell in cells), f"{row['label_score']:.4f}")
    console.print(table)


def print_plan(console: Console, plan: Plan | FeaturePlan) -> None:
    """Rows, forwards, memory, disk and time."""
    counted = "" if plan.exact else " (projected from the first shard)"
    if isinstance(plan, FeaturePlan):
        console.print(f"{plan.shards:,} shards, {plan.rows:,} samples{counted}, {plan.dim:,} features each")
        _print_looks(console, plan)
    else:
        console.print(f"{plan.shards:,} shards, {plan.rows:,} samples{counted}, {plan.snapshots} snapshot(s) to score")
        _print_forwards(console, plan)
    console.print(
        f"memory: {plan.worker_bytes / 1e9:.1f} GB a worker, {plan.driver_bytes / 1e9:.1f} GB for the driver; "
        f"disk: {plan.disk_bytes / 1e9:.2f} GB in run.dir"
    )
    _print_search(console, plan.search, "the features" if isinstance(plan, FeaturePlan) else "the last snapshot")


def _print_looks(console: Console, plan: FeaturePlan) -> None:
    """What a run on features looks at, and what its heads learn."""
    each = "each looked at once" if plan.forwards else "no image is looked at"
    console.print(
        f"decodes: {plan.decodes:,}, forwards: {plan.forwards:,} ({each}; {plan.rows - plan.looks:,} samples have "
        f"features from an earlier start); {plan.looks_per_s:,.0f} samples a second on this machine with one worker's "
        "threads"
    )
    look_s, train_s = plan.seconds["look"], plan.seconds["train"]
    console.print(
        f"{plan.heads:,} heads learn from {plan.head_rows:,} rows; time on one such worker: {duration(look_s)} to "
        f"look, {duration(train_s)} to train; looking divides by the number of actors, and neighbours and scores come "
        "on top"
    )
    console.print(f"features: {size(plan.feature_bytes)} in files, one a shard, which later starts take as they are")


def _print_forwards(console: Console, plan: Plan) -> None:
    """What a run on images trains and scores."""
    console.print(
        f"forwards: {plan.training_forwards:,} to train and follow, {plan.scoring_forwards:,} to score; "
        f"{plan.forwards_per_s:,.0f} a second on this machine with one worker's threads"
    )
    train_s, score_s = plan.seconds["train"], plan.seconds["score"]
    console.print(
        f"time on one such worker: {duration(train_s)} to train, {duration(score_s)} to score; "
        "scoring divides by the number of actors"
    )


def _print_search(console: Console, search: SearchPlan, of: str) -> None:
    """What the neighbour search keeps and holds."""
    console.print(
        f"neighbour index of {of}: {size(search.index_bytes)}, its largest part "
        f"{size(search.part_bytes)}; an actor maps up to {size(search.label_bytes)} for lists of the same label and "
        "all of it for lists of any label (actors of a node share these pages), and holds up to "
        f"{size(search.held_bytes)} of its own"
    )
    console.print(_search_kinds(search))


def _search_kinds(search: SearchPlan) -> str:
    """What goes through IVF, and how much of that is known."""
    kinds = []
    if search.ivf_labels:
        kinds.append(f"lists of the same label for {search.ivf_labels:,} of {search.labels:,} labels")
    if search.ivf_any_label:
        kinds.append("lists of any label")
    how = f"{' and '.join(kinds)} through IVF with {search.cells:,} cells, others flat" if kinds else "all lists flat"
    return f"search: {how} ({'labels as the catalog counts them' if search.counted else NOT_COUNTED})"

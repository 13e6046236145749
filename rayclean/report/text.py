"""What the commands print."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rayclean.report.evaluate import Evaluation
from rayclean.report.plan import Plan
from rayclean.schema import SCORES
from rayclean.storage.contents import read_table
from rayclean.storage.store import Store

# How far the loss must fall below its best before `evaluate` says that labels were memorised.
MEMORISED = 0.1
SHOWN_TEXT = 300  # of an error that is one of many


def print_summary(
    console: Console, root: str, summary: dict[str, Any], seconds: float, true_noise_rate: float | None
) -> None:
    """Where the table is and what it says; the true noise rate beside the estimate where it is known."""
    truth = f"; true {true_noise_rate:.3f}" if true_noise_rate is not None else ""
    quarantined = sum(summary["quarantined"].values())
    console.print(
        f"done in {seconds:.0f} s: {root}/labels (part-*.parquet, classes.parquet, summary.json)", markup=False
    )
    console.print(
        f"{summary['rows']:,} rows, {summary['issues']:,} flagged as wrong labels, "
        f"estimated noise rate {summary['noise_rate']:.3f} (by {summary['merge_score']}{truth})"
    )
    if "clips" in summary:
        console.print(f"{summary['clips']:,} clips (clips-*.parquet), {summary['clip_issues']:,} flagged")
    if not summary["reliable"]:
        console.print(f"unreliable: {summary['reason']}; rank by label_score rather than trust its value", markup=False)
    if quarantined:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(summary["quarantined"].items()))
        console.print(f"quarantined: {quarantined:,} of {summary['samples']:,} samples ({reasons})", markup=False)
    if summary["left_out"]:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(summary["left_out"].items()))
        console.print(f"left out on purpose: {sum(summary['left_out'].values()):,} samples ({reasons})", markup=False)
    for name, text in (("truncated_shards", "cut short"), ("empty_shards", "empty")):
        if summary[name]:
            console.print(f"{summary[name]:,} of {summary['shards']:,} shards are {text}")


def print_status(console: Console, status: Any) -> None:
    """One line a stage, as far as its steps are known; who holds the run, where anybody does."""
    for stage in status.stages:
        state = "done" if stage.done >= stage.total else f"{stage.done}/{stage.total} {stage.unit}"
        if stage.wall_s is not None:
            state += f", {_duration(stage.wall_s)}"
        if stage.left_s is not None:
            state += f", {stage.per_s:.2g} {stage.unit}/s, {_duration(stage.left_s)} left"
        if stage.failed:
            state += f", {stage.failed:,} failed in the last start, first with: {_shortened(stage.cause)}"
        _print(console, f"{stage.stage:<12} {state}")
    if status.driver is not None:
        age, alive = _duration(status.driver.heartbeat_age_s), status.driver.is_alive
        state = f"sign of life {age} ago" if alive else f"no sign of life for {age}: `rayclean run` takes over"
        _print(console, f"{'driver':<12} process {status.driver.pid} on {status.driver.host}, {state}")
    elif not status.is_done:
        _print(console, f"{'driver':<12} none; the run's `rayclean run` command goes on")


def print_evaluation(console: Console, result: Evaluation) -> None:
    """AUROC of each score, best and final, and how good the table is."""
    table = Table("score", "best AUROC", "at epoch", "final AUROC", title="clean against wrong labels")
    for name, quality in result.scores.items():
        table.add_row(name, f"{quality.best:.3f}", str(quality.best_epoch), f"{quality.final:.3f}")
    table.add_row("label_score", "", "", f"{result.label_score['auroc']:.3f}", style="bold")
    console.print(table)
    right = result.predicted_right
    console.print(f"noise rate: true {result.true_noise_rate:.3f}, estimated {result.estimated_noise_rate:.3f}")
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
    """AUROC of each score at each snapshot."""
    paths = [quality for name, quality in result.scores.items() if SCORES[name].family == "interpolation"]
    epochs = sorted({epoch for quality in paths or result.scores.values() for epoch in quality.curve})
    table = Table("score", *(str(epoch) for epoch in epochs), title="AUROC as of each snapshot's epoch")
    for name, quality in result.scores.items():
        table.add_row(name, *(f"{quality.curve[e]:.3f}" if e in quality.curve else "" for e in epochs))
    console.print(table)


def worst_rows(root: str, count: int) -> pa.Table:
    """The rows with the smallest label_score, worst first; ties by row."""
    store = Store(root)
    columns = ["row", "shard", "key", "given_label", "predicted_label", "label_score"]
    worst: pa.Table | None = None
    for name in store.list("labels"):
        if not name.startswith("part-"):
            continue
        part = read_table(store, f"labels/{name}", columns)
        both = part if worst is None else pa.concat_tables([worst, part], promote_options="permissive")
        worst = both.sort_by([("label_score", "ascending"), ("row", "ascending")]).slice(0, count)
    return worst if worst is not None else pa.table({})


def print_worst(console: Console, root: str, count: int) -> None:
    """The worst rows with their predicted labels."""
    table = Table("shard", "key", "given", "predicted", "label_score", title=f"the {count} worst labels")
    for row in worst_rows(root, count).to_pylist():
        cells = (row["shard"], repr(row["key"]), row["given_label"], row["predicted_label"])
        table.add_row(*(str(cell).replace("[", r"\[") for cell in cells), f"{row['label_score']:.4f}")
    console.print(table)


def print_errors(console: Console, found: dict[str, Any], limit: int) -> None:
    """Failed units, then the bad samples and shards of each data set: counts, and the first so many."""
    for stage in found["failed"]:
        _print(console, f"{stage['stage']}: {stage['count']:,} failed (noted {stage['at']})")
        for unit in stage["units"][:limit]:
            _print(console, f"  {unit['file']}: {unit['error']}")
        _print_rest(console, stage["count"], min(limit, len(stage["units"])))
    if not found["failed"]:
        _print(console, "no failed units")
    for data in found["data"]:
        total, read = sum(data["reasons"].values()), data["shards_read"]
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(data["reasons"].items()))
        partly = f" in {read:,} of {data['shards']:,} shards read so far" if read < data["shards"] else ""
        _print(console, f"{data['data']}: {total:,} samples in quarantine{partly}{f' ({reasons})' if reasons else ''}")
        for sample in data["samples"]:
            _print(console, f"  {sample['shard']} {sample['key']!r}: {sample['reason']}, {sample['text']}")
        _print_rest(console, total, len(data["samples"]))
        if data["truncated"]:
            _print(console, f"{data['data']}: {len(data['truncated']):,} of {data['shards']:,} shards are cut short")
        for shard in data["truncated"][:limit]:
            _print(console, f"  {shard['shard']}: {shard['text']}")
        _print_rest(console, len(data["truncated"]), min(limit, len(data["truncated"])))


def _print_rest(console: Console, total: int, shown: int) -> None:
    if total > shown:
        _print(console, f"  and {total - shown:,} more")


def print_sample(console: Console, facts: dict[str, Any]) -> None:
    """All that is known of one sample, a line each."""
    lines = [("sample", f"{facts['key']!r} of {facts['shard']}")]
    lines += [(name, str(facts[name])) for name in ("row", "clip", "member") if name in facts]
    lines += [("in quarantine" if "text" in each else "left out", _reason(each)) for each in facts["aside"]]
    for name in ("given_label", "truth", "verified_label", "predicted_label"):
        if facts.get(name) is not None:
            note = {"truth": " (not seen by any score)", "predicted_label": f", {facts.get('predicted_score', 0):.3f}"}
            lines.append((name.replace("_", " "), _class(facts[name]) + note.get(name, "")))
    if "label_score" in facts:
        verdict = facts["issue_kind"] or "wrong_label" if facts["is_label_issue"] else "no issue"
        lines.append(("label_score", f"{facts['label_score']:.4f} {_rank(facts['rank'])}: {verdict}"))
    for name, score in facts.get("scores", {}).items():
        value = "undefined" if score["value"] is None else f"{score['value']:.4f}"
        lines.append((f"  {name}", f"{value} {_rank(score)}"))
    for name in ("odd_quantile", "odd_drop", "osd_votes"):
        if facts.get(name) is not None:
            lines.append((name, f"{facts[name]:.4f}" if isinstance(facts[name], float) else f"{facts[name]}"))
    for each in facts.get("neighbors", []):
        lines.append(("neighbour", _who(each)))
    if facts.get("few_neighbors"):
        lines.append(("few neighbours", "fewer than iofm.num other images of this label"))
    if facts.get("duplicate_of"):
        lines.append(("equal pixels", _who(facts["duplicate_of"])))
    if "table" not in facts and "given_label" in facts:
        lines.append(("table", "none yet; this is what the finished stages say"))
    elif "table" in facts and not facts["table"]["is_current"]:
        lines.append(("table", f"{facts['table']['merge']}: of an earlier start than the last one"))
    for name, text in lines:
        _print(console, f"{name:<16} {text}")


def _reason(aside: dict[str, Any]) -> str:
    return ", ".join(aside[name] for name in ("reason", "text") if aside.get(name))


def _class(label: dict[str, Any]) -> str:
    return f"{label['label']}" if label["name"] in (None, str(label["label"])) else f"{label['label']} {label['name']}"


def _rank(score: dict[str, Any]) -> str:
    known = score.get("rank") is not None
    return f"(rank {score['rank']:,} of {score['of']:,} from below, {score['percentile']:.1f}%)" if known else ""


def _who(row: dict[str, Any]) -> str:
    return f"row {row['row']} {row['key']!r} of {row['shard']}, given label {_class(row['given_label'])}"


def print_garbage(console: Console, garbage: Any, dry_run: bool) -> None:
    """What was removed, with its size, and what was kept because it cannot be told."""
    for name, size in garbage.sizes.items():
        _print(console, f"{size / 1e6:>12,.1f} MB  {name}")
    did = "would be removed" if dry_run else "removed"
    _print(console, f"{garbage.num_bytes / 1e6:,.1f} MB in {len(garbage.sizes):,} folders and files {did}")
    if garbage.table is not None:
        _print(
            console,
            f"labels/ comes from {garbage.table}, to which the config of the last start and this version of rayclean "
            "do not lead; labels/ itself stays until another table is complete",
        )
    if garbage.kept:
        _print(
            console,
            f"kept whatever they are: folders of {', '.join(garbage.kept)}, since it cannot be told yet which of them "
            f"the config leads to ({garbage.cause}); finish the run first",
        )


def _print(console: Console, line: str) -> None:
    """Prints a line that may hold strangers' text: no markup, and what cannot be printed is escaped."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    console.print(Text(safe), soft_wrap=True)


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_TEXT else f"{text[:SHOWN_TEXT]}..."


def print_plan(console: Console, plan: Plan) -> None:
    """Rows, forwards, memory, disk and time."""
    counted = "" if plan.exact else " (projected from the first shard)"
    console.print(f"{plan.shards:,} shards, {plan.rows:,} samples{counted}, {plan.snapshots} snapshot(s) to score")
    console.print(
        f"forwards: {plan.training_forwards:,} to train and follow, {plan.scoring_forwards:,} to score; "
        f"{plan.forwards_per_s:,.0f} a second on this machine with one worker's threads"
    )
    train_s, score_s = plan.seconds["train"], plan.seconds["score"]
    console.print(
        f"time on one such worker: {_duration(train_s)} to train, {_duration(score_s)} to score; "
        "scoring divides by the number of actors"
    )
    console.print(
        f"memory: {plan.worker_bytes / 1e9:.1f} GB a worker, {plan.driver_bytes / 1e9:.1f} GB for the driver; "
        f"disk: {plan.disk_bytes / 1e9:.2f} GB in run.dir"
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

"""What the commands that look after a run print: status, errors, one sample, what was removed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from rayclean.catalog.table import STRAYS, counted
from rayclean.inspect.errors import Errors
from rayclean.inspect.status import Status
from rayclean.storage.amounts import duration

SHOWN_TEXT = 300  # of an error that is one of many


def print_status(console: Console, status: Status) -> None:
    """One line per stage, what has no name yet, and who holds the run, where anybody does."""
    for stage in status.stages:
        more = " and more" if stage.open_jobs else ""
        state = "done" if stage.is_done else f"{stage.done}/{stage.total}{more} {stage.unit}"
        if stage.wall_s is not None:
            state += f", {duration(stage.wall_s)}"
        if stage.left_s is not None:
            state += f", {stage.per_s:.2g} {stage.unit}/s, {duration(stage.left_s)} left"
        if stage.cause is not None:
            state += f", {stage.failed:,} failed in the last start, first with: {_shortened(stage.cause)}"
        _print(console, f"{stage.stage:<12} {state}")
    for name, why in status.later.items():
        _print(console, f"{name:<12} {why}")
    if status.driver is not None:
        age, alive = duration(status.driver.heartbeat_age_s), status.driver.is_alive
        state = f"sign of life {age} ago" if alive else f"no sign of life for {age}: `rayclean run` takes over"
        _print(console, f"{'driver':<12} process {status.driver.pid} on {status.driver.host}, {state}")
    elif not status.is_done:
        _print(console, f"{'driver':<12} none; the run's `rayclean run` command goes on")


def print_until(console: Console, until: str, summary: dict[str, Any], class_counts: Mapping[str, int]) -> None:
    """What the samples are, where a run ends before its table.

    Args:
        console: where it is printed.
        until: the last stage that was done.
        summary: of the catalog.
        class_counts: rows by the name of their given label, of all classes.
    """
    console.print(f"done until {until}; the same command without --until goes on")
    num_shards, num_classes = summary["shards"], len(class_counts)
    console.print(f"{summary['rows']:,} rows of {num_shards:,} shards, {summary['duplicates']:,} duplicates among them")
    few, many = (pick(class_counts, key=class_counts.__getitem__) for pick in (min, max))
    sizes = f"of {class_counts[few]:,} ({few!r}) to {class_counts[many]:,} ({many!r}) rows"
    empty = sum(not count for count in class_counts.values())
    lacking = f"; {empty:,} have none" if empty else ""
    _print(console, f"{num_classes:,} classes {sizes}{lacking}")
    print_left(console, summary)


def print_left(console: Console, summary: dict[str, Any]) -> None:
    """What of the samples and shards is no row, by reason."""
    if quarantined := sum(summary["quarantined"].values()):
        reasons = counted(summary["quarantined"])
        console.print(f"quarantined: {quarantined:,} of {summary['samples']:,} samples ({reasons})", markup=False)
    if strays := summary.get(STRAYS):
        console.print(f"files of no sample: {sum(strays.values()):,} ({counted(strays)})", markup=False)
    if summary["left_out"]:
        reasons = counted(summary["left_out"])
        console.print(f"left out on purpose: {sum(summary['left_out'].values()):,} samples ({reasons})", markup=False)
    if unused := summary.get("unused_features"):
        console.print(f"features of no sample: {unused:,}; are these the shards that they were made of?")
    for name, text in (("truncated_shards", "cut short"), ("empty_shards", "empty")):
        if summary[name]:
            console.print(f"{summary[name]:,} of {summary['shards']:,} shards are {text}")


def print_findings(console: Console, findings: Iterable[Any]) -> bool:
    """One line each as it comes, whether it is sound first; returns whether one of them is an error."""
    failed = False
    for finding in findings:
        console.print(f"{finding.level:<8}{finding.text}", markup=False)
        failed |= finding.level == "error"
    return failed


def print_graph(console: Console, lines: Sequence[Any], unnamed: Sequence[Any]) -> None:
    """One line per job with the numbers of those that it reads, and what cannot be named yet."""
    for number, line in enumerate(lines):
        units = "units not known yet" if line.num_units is None else f"{line.num_units:,} units"
        left = "" if line.num_missing in (None, line.num_units) else f", {line.num_missing:,} missing"
        state = f"{units}{left}" if line.is_wanted else "nothing needs it any more"
        state = "done" if line.num_missing == 0 else state
        reads = f"reads {' '.join(map(str, line.reads))}" if line.reads else ""
        _print(console, f"{number:>4} {line.stage:<12} {line.kind:<16} {line.folder:<24} {state:<24} {reads}".rstrip())
    for each in unnamed:
        _print(console, f"     {each.stage:<12} {each.why}")


def print_errors(console: Console, found: Errors, limit: int) -> None:
    """Failed units, then the bad samples and shards of each data set: counts, and the first so many."""
    for stage, entry in found.failed.items():
        _print(console, f"{stage}: {entry.count:,} failed (noted {entry.at})")
        for unit in entry.units[:limit]:
            _print(console, f"  {unit.file}: {unit.error}")
        _print_rest(console, entry.count, min(limit, len(entry.units)))
    if not found.failed:
        _print(console, "no failed units")
    for data in found.data:
        total, cut = sum(data.reasons.values()), data.truncated
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(data.reasons.items()))
        is_partly = data.shards_read < data.shards
        partly = f" in {data.shards_read:,} of {data.shards:,} shards read so far" if is_partly else ""
        _print(console, f"{data.data}: {total:,} samples in quarantine{partly}{f' ({reasons})' if reasons else ''}")
        for sample in data.samples:
            _print(console, f"  {sample.shard} {sample.key!r}: {sample.reason}, {sample.text}")
        _print_rest(console, total, len(data.samples))
        if unused := data.unused_features:
            _print(console, f"{data.data}: {unused:,} features in files beside the shards are of no sample")
        if cut:
            _print(console, f"{data.data}: {len(cut):,} of {data.shards:,} shards are cut short")
        for shard in cut[:limit]:
            _print(console, f"  {shard.shard}: {shard.text}")
        _print_rest(console, len(cut), min(limit, len(cut)))


def _print_rest(console: Console, total: int, shown: int) -> None:
    if total > shown:
        _print(console, f"  and {total - shown:,} more")


def print_sample(console: Console, facts: dict[str, Any]) -> None:
    """All that is known of one sample, one line each."""
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
        lines.append(("few neighbours", "fewer than iofm.num other samples of this label"))
    if facts.get("duplicate_of"):
        lines.append((f"equal {facts.get('equal', 'pixels')}", _who(facts["duplicate_of"])))
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
    text = f"row {row['row']} {row['key']!r} of {row['shard']}, given label {_class(row['given_label'])}"
    text += f", predicted {_class(row['predicted_label'])}" if row.get("predicted_label") else ""
    return text + (f", distance {row['distance']:.4g}" if row.get("distance") is not None else "")


def print_garbage(console: Console, garbage: Any, dry_run: bool) -> None:
    """What was removed, with its size, and what was kept because it cannot be told."""
    for name, size in garbage.sizes.items():
        _print(console, f"{size / 1e6:>12,.1f} MB  {name}")
    did = "would be removed" if dry_run else "removed"
    _print(console, f"{garbage.num_bytes / 1e6:,.1f} MB in {len(garbage.sizes):,} folders and files {did}")
    for line in garbage.refused:
        _print(console, f"could not be removed: {line}")
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

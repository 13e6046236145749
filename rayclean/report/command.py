"""`rayclean report`: a folder of plain HTML about a finished run, that opens without a server.

The table is streamed: plots are made of a sample of its rows, and only the worst ones are held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayclean import __version__
from rayclean.config import Config
from rayclean.config.secrets import refuse_secrets
from rayclean.decisions.verified import NOTHING_VERIFIED, read_verified
from rayclean.errors import ConfigError
from rayclean.evaluate.results import doubts, warnings
from rayclean.inspect.final_table import FinalTable, stream
from rayclean.merge.models import Fitted
from rayclean.merge.stage import MODEL
from rayclean.report import page_views as views
from rayclean.report.page_facts import Classes, Report, Sample, make_samples
from rayclean.report.page_files import Pictures, open_folder, write_pages, write_pictures
from rayclean.report.page_html import lowest_first, render
from rayclean.report.page_near import NearPairs, near_pairs
from rayclean.report.page_numbers import shown_rows
from rayclean.report.page_svg import reliability as reliability_plot
from rayclean.report.page_table import Seen, scan
from rayclean.report.page_truth import Known, Truth, no_truth, read_some_truth, reliability
from rayclean.report.page_words import basis, flag_words, reliability_words
from rayclean.run.run import Run
from rayclean.run.start import look_at_current
from rayclean.schema import UNKNOWN, Array
from rayclean.storage.contents import read_json
from rayclean.storage.published import Published
from rayclean.storage.store import Store
from rayclean.storage.units import block_name, block_range

FOLDER = "report"
MAX_TRANSITION = 4096  # classes up to which the transition matrix is read: 128 MiB
RELIABILITY = "share of right labels by label_score; the numbers are in the table below"
VERIFIED_BLOCKS = 32  # blocks of verified rows that are judged again for their calibration
TRANSITION, TRANSITION_REASON = "transition", "transition_reason"


def write_report(config: Config, out: str | None = None, top: int = 2000) -> str:
    """Writes the report of a finished run.

    Args:
        config: the run.
        out: folder or URL of the report; None for `report/` in the run. What an earlier report left there goes.
        top: samples that are shown with their pictures, shared fairly over the classes.

    Returns:
        The path of its overview, index.html.

    Raises:
        InputError: the table is not complete, or of another config; or `out` holds something else.
        ConfigError: `out` cannot be written or may carry credentials, or `top` is below 1.
    """
    refuse_secrets(out, "--out")
    if top < 1:
        raise ConfigError(f"a report of {top} samples: expected at least 1")
    this, published = look_at_current(config, Store(config.run.dir))
    table = FinalTable.of(published)
    seen = _Facts.read(this, table, top)
    folder = open_folder(f"{this.store.root}/{FOLDER}" if out is None else out)
    samples = seen.samples(table)
    rows = [row for sample in samples.values() for row in (sample.row, *(near.row for near in sample.neighbors))]
    shown = np.array(rows if config.data.has_images else [], np.int64)
    pictures = write_pictures(folder, this.catalog, shown, config.data.max_pixels)
    return write_pages(folder, render(_report(this, seen, samples, pictures)))


@dataclass(frozen=True)
class _Facts:
    """What is read of a run before its pictures.

    Attributes:
        published: the table's files.
        lines: of the table of classes.
        shares: (K,) how many rows of each class are shown.
        heated: (M,) labels of the heat map.
        scores: columns of the table.
        near: None where the run's files hold no distances.
    """

    published: Published
    lines: list[dict[str, Any]]
    shares: Array
    heated: Array
    scores: list[str]
    seen: Seen
    near: NearPairs | None
    truth: Truth

    @classmethod
    def read(cls, this: Run, table: FinalTable, top: int) -> _Facts:
        columns = ["label", "name", "rows", "issues", "noise_rate", "predicted"]
        lines = table.published.classes(columns).to_pylist()
        rows, issues = (np.array([line[name] for line in lines], np.int64) for name in ("rows", "issues"))
        shares, heated = shown_rows(top, rows, issues), views.heat_classes(issues)
        scores = [name for name in table.rows.schema.names if name.startswith("score_")]
        seen = scan(table.rows, this.catalog.num_rows, scores, shares, heated)
        facts = cls(table.published, lines, shares, heated, scores, seen, _near(this), no_truth(len(lines)))
        if not this.config.has_truth:
            return facts
        rows = np.concatenate([seen.sample["row"], facts.rows])
        return replace(facts, truth=read_some_truth(this.catalog, rows))

    @property
    def rows(self) -> Array:
        """All that are shown by themselves: the worst, copies and near pairs."""
        copies = [row for group in self.seen.copies.values() for row in group.rows]
        near = np.empty(0, np.int64) if self.near is None else self.near.rows.ravel()
        return np.unique(np.concatenate([self.seen.worst, np.array(copies, np.int64), near]))

    def samples(self, table: FinalTable) -> dict[int, Sample]:
        """These rows, by row."""
        columns = [
            *("row", "key", "shard", "given_label", "label_score", "is_label_issue", "predicted_label"),
            *("predicted_score", "issue_kind", "verified_label", "few_neighbors", "neighbor_rows", "neighbor_labels"),
            *self.scores,
        ]
        lines = _lines(table, self.rows, columns)
        near = np.unique([row for line in lines for row in line["neighbor_rows"] or ()]).astype(np.int64)
        keys = {line["row"]: line["key"] for line in _lines(table, near, ["row", "key"])}
        ranked = {name: self.seen.sample[name] for name in self.scores}
        return make_samples(lines, ranked, self.truth.labels, keys)


def _lines(table: FinalTable, rows: Array, columns: Sequence[str]) -> list[dict[str, Any]]:
    return stream(table.rows, columns, pc.field("row").isin(pa.array(rows, pa.int64())))


def _near(this: Run) -> NearPairs | None:
    """Near duplicates by the vote of the last snapshot; None where its files are gone."""
    folder, block_rows = this.score_files().vote_folders[-1], this.config.blocks.rows
    if not this.store.exists(f"{folder}/{block_name(0)}.safetensors"):
        return None
    return near_pairs(this.catalog, folder, block_rows)


def _report(this: Run, facts: _Facts, samples: Mapping[int, Sample], pictures: Pictures) -> Report:
    """Puts together what the pages show."""
    seen, truth = facts.seen, facts.truth
    classes = Classes([line["name"] for line in facts.lines])
    lines, left_out = views.class_lines(facts.lines, truth, classes, facts.shares)
    sample, true = seen.sample, truth.of(seen.sample["row"])
    columns = {name: sample[name] for name in facts.scores}
    known = _known(this, seen, true)
    calibrated, summary = reliability(known), facts.published.summary()
    things = "images" if this.config.data.has_images else "samples"
    reason = summary.get(TRANSITION_REASON)
    heat, heat_note = views.label_heat_map(_transition(facts), reason, seen, facts.heated, classes)
    return Report(
        title=this.store.root.rpartition("/")[2],
        classes=classes,
        summary=summary,
        version=__version__,
        true_noise_rate=truth.noise_rate,
        warnings=_warnings(this, summary, pictures),
        flags=flag_words(seen.expected, this.config.merge.threshold, things, known, basis(summary)),
        verified=seen.verified,
        kinds=dict(seen.kinds.most_common()),
        class_lines=lines,
        classes_left_out=left_out,
        heat_map=heat,
        heat_note=heat_note,
        confusions=views.confusions(seen, facts.heated),
        scores=views.score_views(columns, sample["given_label"], true),
        agreement=views.agreement_map({"label_score": sample["label_score"], **columns}),
        reliability=None if calibrated is None else reliability_plot(calibrated.bins, RELIABILITY),
        reliability_bins=[] if calibrated is None else calibrated.bins,
        reliability_words=reliability_words(calibrated, things),
        sampled=len(sample["row"]),
        samples=lowest_first(samples[row] for row in seen.worst.tolist()),
        copies=views.copy_groups(seen, samples),
        num_groups=seen.num_groups,
        near=views.near_samples(facts.near, samples),
        num_near=None if facts.near is None else facts.near.num_rows,
        has_pictures=this.config.data.has_images,
        equal=this.catalog.digests_of,
        pictures=pictures.names,
        tiny=pictures.tiny,
    )


def _warnings(this: Run, summary: Mapping[str, Any], pictures: Pictures) -> list[str]:
    found = [*doubts(summary), *warnings(this)]
    if not summary["reliable"]:
        found.insert(0, f"the merge is not reliable: {summary['reason']}")
    if pictures.failed:
        found.append(
            f"{len(pictures.failed)} samples have no picture here, since it could not be read: {pictures.reason}"
        )
    return found


def _transition(facts: _Facts) -> Array | None:
    """(M, M) P(given label | true class) of some classes; None where the merge has none, or too many classes."""
    shown = facts.heated
    if len(facts.lines) > MAX_TRANSITION or not len(shown):
        return None
    column = facts.published.classes([TRANSITION])[TRANSITION].take(pa.array(shown))
    return None if column.null_count else np.array(column.to_pylist())[:, shown]


def _known(this: Run, seen: Seen, true: Array) -> Known | None:
    """Where labels are known to be right or wrong: by the truth where the run has one, else by people."""
    sample = seen.sample
    known = (true != UNKNOWN) & np.isnan(sample["verified_label"])  # a verified row's score is what people say
    if known.any():
        right = sample["given_label"][known] == true[known]
        return Known(sample["label_score"][known], right, by_truth=True)
    scores, right = _judged_again(this)
    return Known(scores, right, by_truth=False) if len(scores) else None


def _judged_again(this: Run) -> tuple[Array, Array]:
    """Of verified rows, what the model says of them by itself, (V,), and whether their labels are right."""
    (_, apply), files = this.merge(), this.score_files()
    folder = apply.folder
    verified = read_verified(this.store, folder) if apply.has_verified else NOTHING_VERIFIED
    scores, right = [np.empty(0)], [np.empty(0, bool)]
    if len(verified.rows):
        fitted = Fitted.from_json(read_json(this.store, f"{folder}/{MODEL}.json"))
        for block in np.unique(verified.rows // files.block_rows)[:VERIFIED_BLOCKS].tolist():
            start, stop = block_range(block, files.block_rows, files.num_rows)
            here = verified.rows[slice(*np.searchsorted(verified.rows, [start, stop]))]
            labels = verified.between(start, stop)[here - start]
            chosen = np.isin(np.arange(start, stop), here)
            given = files.given(start, stop)[chosen]
            judged = fitted.judge(files.read(block, fitted.sources).take(chosen), given)
            scores.append(judged.label_score.astype(np.float64))
            right.append(given == labels)
    return np.concatenate(scores), np.concatenate(right)

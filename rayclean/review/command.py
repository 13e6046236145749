"""`rayclean review`: people look at the most doubtful labels of a finished run and decide; see `rayclean.review`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from rayclean.catalog.pictures import thumbnails
from rayclean.catalog.table import SHARDS_FILE, Catalog
from rayclean.config import Config, parse_config, parse_yaml, without_retired
from rayclean.decisions.entries import Sample
from rayclean.decisions.naming import REVIEW, Naming, note_classes
from rayclean.errors import InputError
from rayclean.evaluate.results_text import print_estimate
from rayclean.inspect.final_table import FinalTable, stream
from rayclean.review.estimate import estimate
from rayclean.review.log import checked_reviewer
from rayclean.review.queue import HELD, Queue
from rayclean.review.server import Picture, ReviewServer
from rayclean.review.state import Review
from rayclean.review.survey import Survey, draw_survey
from rayclean.review.survey_file import SURVEY, open_survey, write_list, wrong_by_list
from rayclean.run.start import look
from rayclean.schema import drop_word
from rayclean.storage.published import LABELS, TABLES, Published, find_published
from rayclean.storage.store import Store

COMPARED_ROWS = 50  # of the table, with the catalog: another one has other samples at nearly all of them
CONFIG_FILE = "config.yaml"


def serve_review(config: Config, port: int, reviewer: str | None, console: Console, sample: int | None = None) -> None:
    """Serves the page until it is interrupted; every decision is on the disk before the page goes on.

    Args:
        config: of the run's last start.
        port: of 127.0.0.1; 0 for any that is free.
        reviewer: who decides; None where each page asks.
        console: where the address is shown.
        sample: how many rows of a sample to offer instead of the most doubtful ones, to estimate the noise rate.

    Raises:
        InputError: the run has no complete table, is no local folder, or a log cannot be read or written.
        ConfigError: the reviewer's name or the port cannot be.
    """
    console.print(f"reading the table of {config.run.dir}", markup=False)
    survey = None if sample is None else survey_of(config, sample)
    with open_review(config, port, reviewer, survey=survey) as server:
        _greet(console, server)
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            console.print()
        _say_goodbye(console, server)
        if survey is not None:
            _tell(console, survey, server.review.is_wrong())


def list_survey(config: Config, sample: int, path: Path, console: Console) -> None:
    """Writes a sample's rows for people who label elsewhere; where the list is there, says what its labels tell.

    Args:
        config: of the run's last start.
        sample: how many rows.
        path: of the CSV file.
        console: where it is said.

    Raises:
        RaycleanError: there is no complete table, or the list cannot be written or read.
    """
    survey, store = survey_of(config, sample), Store(config.run.dir)
    names = Published.open(store).names
    if not path.exists():
        write_list(survey, path)
        command = shlex.join(["merge.verified=" + str(path)])
        console.print(
            f"{len(survey.rows):,} rows are in {path}: fill its column label in (a class, or {drop_word(names)}; "
            "empty: not looked at), give this command again for the noise rate, and the run's with "
            f"{command} to take the labels in",
            markup=False,
        )
        return
    wrong = wrong_by_list(survey, path, look(config, store).catalog, names)
    _tell(console, survey, wrong)


def _tell(console: Console, survey: Survey, is_wrong: Mapping[Sample, bool]) -> None:
    verified = sum(each.sample in is_wrong for each in survey.rows)
    print_estimate(console, len(survey.rows), verified, estimate(survey, is_wrong))


def survey_of(config: Config, asked: int) -> Survey:
    """The run's sample of so many rows; it is drawn where there is none.

    Raises:
        RaycleanError: there is no complete table, or another sample.
    """
    store = Store(config.run.dir)
    published, catalog = Published.open(store), look(config, store).catalog
    table = FinalTable.of(published)
    _check_rows(store, catalog, table)
    draws, names = catalog.draw_id, table.names

    def draw() -> Survey:
        return draw_survey(table.rows, asked, table.merge, names, config.run.seed, lambda rows: np.asarray(draws[rows]))

    survey = open_survey(store, asked, draw)
    if survey.num_rows != catalog.num_rows:
        raise InputError(
            f"{store.full(SURVEY)}: is a sample of {survey.num_rows:,} rows, the table has {catalog.num_rows:,}; "
            "remove the file to draw another one"
        )
    return survey


@contextmanager
def open_review(
    config: Config, port: int, reviewer: str | None, held: int = HELD, survey: Survey | None = None
) -> Iterator[ReviewServer]:
    """A server that listens and does not answer yet; see `serve_review`.

    Args:
        config: of the run's last start.
        port: of 127.0.0.1; 0 for any that is free.
        reviewer: who decides; None where each page asks.
        held: rows that are offered at a time.
        survey: the rows that are offered, and no others; None for the most doubtful.
    """
    store = Store(config.run.dir)
    if not store.is_local:
        raise InputError(
            f"{store.root} is no local folder, and a decision must be on a disk before it counts: copy {LABELS}/, "
            f"{TABLES}/, catalog-*/, *.json and {CONFIG_FILE} of the run to a folder here, review that, and copy "
            f"its {REVIEW}/ back into the run"
        )
    Published.open(store)
    reviewer = None if reviewer is None else checked_reviewer(reviewer)
    catalog = look(config, store).catalog
    note_classes(store)
    chosen = None if survey is None else [each.sample for each in survey.rows]
    review = Review(
        Path(store.path),
        lambda known: _open_queue(config, store, catalog, known, held, chosen),
        lambda names: Naming.of_run(store, names, config.merge.verified_classes),
    )
    try:
        if reviewer is not None:
            review.open_log(reviewer)
        title = store.root.rpartition("/")[2]
        picture = _pictures(catalog, config) if config.data.has_images else None
        with ReviewServer(port, review, picture, title, reviewer, take_in(store)) as server:
            yield server
    finally:
        review.close()


def take_in(store: Store) -> str:
    """The command that makes the run take the decisions in; a run that was moved needs its folder named."""
    source = store.full(CONFIG_FILE)
    tree, lines = parse_yaml(store.read(CONFIG_FILE), source, room=2)
    then = parse_config(without_retired(tree), source, lines).run.dir
    moved = [] if Store(then).root == store.root else [f"run.dir={store.root}"]
    return shlex.join(["rayclean", "run", store.full(CONFIG_FILE), *moved, f"merge.verified={REVIEW}"])


def _open_queue(
    config: Config, store: Store, catalog: Catalog, known: str | None, held: int, chosen: Sequence[Sample] | None
) -> Queue | None:
    """The queue of the table as it is now; None where that is the known one, or none that is complete."""
    published = find_published(store)
    if published is None or published.merge == known:
        return None
    table = FinalTable.of(published)
    has_other_labels = config.merge.verified not in (None, REVIEW)  # a file's: these rows need no second look
    queue = Queue(table.merge, table.names, table.rows, has_other_labels, held, chosen, config.data.has_images)
    _check_rows(store, catalog, table)
    return queue


def _check_rows(store: Store, catalog: Catalog, table: FinalTable) -> None:
    """The table and the catalog, which has the pictures, must be of the same rows.

    Raises:
        InputError: they are not.
    """
    count = table.rows.count_rows()
    expected = catalog.num_rows if store.exists(f"{catalog.folder}/{SHARDS_FILE}") else 0
    if count != expected:
        raise table.published.of_other_rows(f"{count:,} rows", f"{expected:,}")
    rows = np.unique(np.linspace(0, count - 1, COMPARED_ROWS).astype(np.int64)).tolist()
    for each in stream(table.rows, ["row", "shard", "key"], pc.field("row").isin(pa.array(rows, pa.int64()))):
        if (found := (each["shard"], each["key"])) != (sample := _sample(catalog, each["row"])):
            raise table.published.of_other_rows(f"row {each['row']} is {found}", f"{sample}")


def _sample(catalog: Catalog, row: int) -> tuple[str, str]:
    """Shard and key of a row."""
    ((shard, place, _),) = catalog.shards_of(row, row + 1)
    return catalog.shards["name"][shard].as_py(), catalog.rows_of_shard(shard)["key"][place].as_py()


def _pictures(catalog: Catalog, config: Config) -> Picture:
    """Pictures of the catalog's rows, as PNG files."""

    def picture(row: int, side: int) -> bytes:
        if not 0 <= row < catalog.num_rows:
            raise InputError(f"row {row}: the run has {catalog.num_rows} rows")
        ((_, png),) = thumbnails(catalog, np.array([row]), config.data.max_pixels, side)
        return png

    return picture


def _greet(console: Console, server: ReviewServer) -> None:
    progress = server.review.progress()
    offered = progress["total"] - progress["done"]
    console.print(
        f"{offered:,} rows are offered, "
        + ("" if progress["flagged_left"] is None else f"{progress['flagged_left']:,} flagged ones are left, ")
        + f"{progress['done']:,} are decided"
    )
    if progress["elsewhere"]:
        console.print(f"{progress['elsewhere']:,} decisions are on samples that the table does not have", markup=False)
    for name in server.review.repaired:
        console.print(f"{name}: the last line of the log was cut, by a crash before it counted; it is removed")
    console.print(f"review at {server.door.url} (Ctrl-C ends it, and nothing is lost)", markup=False)


def _say_goodbye(console: Console, server: ReviewServer) -> None:
    progress = server.review.progress()
    console.print(f"{progress['done']:,} of {progress['total']:,} decided, {progress['disputed']:,} disputed")
    if progress["agreed"]:
        console.print(f"take {progress['agreed']:,} labels in: {server.command}", markup=False)

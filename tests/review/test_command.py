"""`rayclean review` of a run: what it needs, and that a run takes in what it leaves."""

from __future__ import annotations

import io
import json
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_digits

from rayclean.config import Config
from rayclean.decisions.entries import Choice
from rayclean.decisions.naming import REVIEW, log_name
from rayclean.errors import ConfigError, InputError
from rayclean.inspect.garbage import collect
from rayclean.review.command import serve_review, survey_of, take_in
from rayclean.review.estimate import estimate
from rayclean.review.server import ReviewServer
from rayclean.review.state import View
from rayclean.run.start import look
from rayclean.storage.store import Store
from tests.review.runs import entries_of, serving

QUIET = Console(quiet=True)


def get(server: ReviewServer, path: str) -> bytes:
    address, _, token = server.door.url.partition("?token=")
    asked = urllib.request.Request(address + path, headers={"Cookie": f"rayclean={token}"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        data: bytes = answer.read()
    return data


def test_pictures_are_those_of_the_rows(reviewed: Config) -> None:
    with serving(reviewed, "anna") as server:
        row = json.loads(get(server, "api/queue"))["rows"][0]
        item = json.loads(get(server, f"api/item?row={row}"))
        assert item["is_label_issue"]
        for each in (row, item["neighbors"][0]["row"]):
            key = json.loads(get(server, f"api/item?row={each}"))["key"]
            picture = np.asarray(Image.open(io.BytesIO(get(server, f"picture?row={each}&side=320"))))
            expected = np.rint(load_digits().images[int(key)] * (255 / 16)).astype(np.uint8)
            np.testing.assert_array_equal(picture, np.repeat(expected[..., None], 3, axis=2))


def test_it_ends_by_an_interrupt_and_says_what_takes_the_decisions_in(
    reviewed: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decide_and_interrupt(server: ReviewServer, poll_interval: float) -> None:
        server.review.decide("anna", server.review.queue.rows[0], Choice.DROP)
        raise KeyboardInterrupt

    monkeypatch.setattr(ReviewServer, "serve_forever", decide_and_interrupt)
    said = io.StringIO()
    serve_review(reviewed, 0, "anna", Console(file=said, width=1000))
    assert "review at http://127.0.0.1:" in said.getvalue()
    command = f"rayclean run {reviewed.run.dir}/config.yaml merge.verified=review"
    assert f"take 1 labels in: {command}" in said.getvalue()
    assert [entry.decision for entry in entries_of(reviewed, "anna")] == ["drop"]


def test_a_sample_is_shown_blind_and_tells_the_noise_rate(reviewed: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    survey = survey_of(reviewed, 30)

    def decide_and_interrupt(server: ReviewServer, poll_interval: float) -> None:
        rows = server.review.rows("anna", View.OPEN)
        assert rows == [each.row for each in survey.rows]
        item = server.review.item("anna", rows[0], View.OPEN)
        assert (item["blind"], item["given"]["name"]) == (True, survey.rows[0].given)
        assert {item[name] for name in ("suggestion", "probability", "label_score", "issue_kind")} == {None}
        assert (item["scores"], item["neighbors"], item["is_label_issue"]) == ({}, [], False)
        other = next(row for row in range(240) if row not in rows)
        server.review.decide("anna", other, Choice.DROP)  # of no sample: does not count
        for place, row in enumerate(rows):
            server.review.decide("anna", row, Choice.KEEP if place % 3 else Choice.DROP)
        server.review.decide("anna", rows[1], Choice.UNSURE)
        progress = server.review.progress()
        assert (progress["done"], progress["total"], progress["flagged_left"]) == (30, 30, None)
        assert server.review.undo("anna") == rows[1]
        server.review.decide("anna", rows[1], Choice.UNSURE)
        raise KeyboardInterrupt

    monkeypatch.setattr(ReviewServer, "serve_forever", decide_and_interrupt)
    said = io.StringIO()
    serve_review(reviewed, 0, "anna", Console(file=said, width=1000), 30)
    wrong = {each.sample: place % 3 == 0 for place, each in enumerate(survey.rows) if place != 1}
    found = estimate(survey, wrong)
    assert found is not None
    assert (
        f"by 29 of 30 rows of the sample: {found.rate:.3f} ({found.low:.3f} to {found.high:.3f}, 95%)"
        in said.getvalue()
    )
    assert "flagged" not in said.getvalue()


def test_a_decision_makes_another_merge_and_nothing_else(reviewed: Config) -> None:
    config = reviewed.model_copy(update={"merge": reviewed.merge.model_copy(update={"verified": REVIEW})})
    store = Store(config.run.dir)
    line = {"row": 0, "shard": "digits-000000.tar", "key": "000", "given": "zero", "decision": "drop", "label": None}
    before = look(config, store)
    assert before.merge()[0].folder == look(reviewed, store).merge()[0].folder
    store.publish(log_name("anna"), (json.dumps({**line, "time": "now"}) + "\n").encode())
    after = look(config, store)
    assert before.merge()[0].folder != after.merge()[0].folder
    assert before.score_files().inputs() == after.score_files().inputs()


def test_a_log_of_an_earlier_release_is_read_by_the_table_or_refused(reviewed: Config) -> None:
    with serving(reviewed) as server:
        item = server.review.item("anna", 0, View.OPEN)
    line = {"row": 0, "shard": item["shard"], "key": item["key"], "given": item["given"]["label"], "decision": "keep"}
    old, path = json.dumps({**line, "label": None, "time": "now"}) + "\n", Path(reviewed.run.dir, log_name("anna"))
    path.parent.mkdir()
    path.write_text(old)
    with serving(reviewed, "anna") as server:
        assert server.review.item("anna", 0, View.MINE)["mine"] == {"decision": "keep", "label": None}
        server.review.decide("anna", 1, Choice.DROP)
    assert [entry.given for entry in entries_of(reviewed, "anna")][:1] == [item["given"]["name"]]
    assert path.read_text().startswith(old)
    path.with_suffix(".classes.json").unlink()
    path.write_text(json.dumps({**line, "given": (line["given"] + 1) % 10, "label": None, "time": "now"}) + "\n")
    with pytest.raises(InputError, match=r"anna\.jsonl has classes by number.*merge\.verified_classes"):
        serve_review(reviewed, 0, "ben", QUIET)


def test_what_removes_garbage_leaves_decisions(reviewed: Config) -> None:
    store = Store(reviewed.run.dir)
    store.publish(log_name("anna"), b"")
    found = collect(reviewed, dry_run=False)
    assert not any(name.startswith(REVIEW) for name in found.sizes)
    assert store.exists(log_name("anna"))


def test_the_command_names_the_folder_of_a_run_that_was_moved(reviewed: Config) -> None:
    store, path = Store(reviewed.run.dir), Path(reviewed.run.dir, "config.yaml")
    tree = yaml.safe_load(path.read_text())
    tree["run"]["dir"] = "where/it was"
    path.write_text(yaml.safe_dump(tree))
    assert take_in(store).split()[3] == f"run.dir={store.root}"


def test_an_object_store_is_refused_with_what_to_do(reviewed: Config) -> None:
    config = reviewed.model_copy(update={"run": reviewed.run.model_copy(update={"dir": "memory://runs/digits"})})
    with pytest.raises(InputError, match=r"is no local folder.*copy"):
        serve_review(config, 0, None, QUIET)


def test_a_run_without_a_table_is_refused(reviewed: Config) -> None:
    Path(reviewed.run.dir, "tables", "_manifest.json").unlink()
    with pytest.raises(InputError, match="no complete table"):
        serve_review(reviewed, 0, None, QUIET)


def test_a_table_of_other_rows_is_refused(reviewed: Config) -> None:
    noise = reviewed.noise.model_copy(update={"kind": "symmetric", "rate": 0.3})
    with pytest.raises(InputError, match="of other rows"):
        serve_review(reviewed.model_copy(update={"noise": noise}), 0, None, QUIET)


def test_what_cannot_be_is_refused_before_anything_is_served(reviewed: Config) -> None:
    with pytest.raises(ConfigError, match="expected letters"):
        serve_review(reviewed, 0, "a/b", QUIET)
    with pytest.raises(ConfigError, match="port 70000"):
        serve_review(reviewed, 70_000, None, QUIET)
    Path(reviewed.run.dir, REVIEW).mkdir()
    Path(reviewed.run.dir, log_name("ben")).write_text("nonsense\n")
    with pytest.raises(InputError, match=r"review/ben\.jsonl, line 1|ben\.jsonl, line 1"):
        serve_review(reviewed, 0, "anna", QUIET)

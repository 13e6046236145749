"""A review at work: who has decided what, what is left, and what a reviewer is shown."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from rayclean.decisions.decisions import latest, settle, standing
from rayclean.decisions.entries import SUFFIX, Choice, Entry, Sample, read_entries
from rayclean.decisions.naming import REVIEW, Naming, log_name
from rayclean.errors import ConfigError, InputError
from rayclean.review.log import Log, checked_reviewer
from rayclean.review.palette import fixed_keys, likely_keys
from rayclean.review.queue import Queue
from rayclean.review.shown import judgement, likely_labels

Facts = dict[str, Any]


class View(StrEnum):
    """What a reviewer asks for."""

    OPEN = "open"  # nobody has decided
    OTHERS = "others"  # others have, and the reviewer has not: a second opinion
    MINE = "mine"  # the reviewer has, the last one first
    DISPUTED = "disputed"  # reviewers differ


class Review:
    """The decisions on one run. Any number of threads may call; of logs that other processes write it sees the growth.

    Args:
        run: the folder of the run.
        open_queue: the queue of the final table as it is now, None while there is no complete one; it is asked again
            each time that a reviewer opens the page, since a run may have replaced the table.
        naming: what the classes of logs are called where the table has these.

    Raises:
        InputError: there is no complete table, or a log cannot be read.
    """

    def __init__(
        self,
        run: Path,
        open_queue: Callable[[str | None], Queue | None],
        naming: Callable[[tuple[str, ...]], Naming] = Naming,
    ) -> None:
        self._run, self._open_queue, self._name = run, open_queue, naming
        self._lock = threading.RLock()
        self._logs: dict[str, Log] = {}
        self._read: dict[str, tuple[tuple[int, int], list[Entry]]] = {}
        self.repaired: list[str] = []
        queue = open_queue(None)
        if queue is None:
            raise InputError("the run holds no complete table; run `rayclean run` to its end")
        self._take(queue)

    def open_log(self, reviewer: str) -> Log:
        """The log of a reviewer, open until `close`.

        Raises:
            RaycleanError: the name cannot be, or the log cannot be opened.
        """
        reviewer = checked_reviewer(reviewer)
        with self._lock:
            if reviewer not in self._logs:
                self._logs[reviewer] = log = Log(self._run, reviewer, self._naming)
                self.repaired += [reviewer] if log.repaired else []
            return self._logs[reviewer]

    def decide(
        self, reviewer: str, row: int, choice: Choice, label: str | None = None, given: str | None = None
    ) -> None:
        """Writes a decision down; when this returns, it is on the disk.

        Args:
            reviewer: who.
            row: of the table.
            choice: any but `undo`.
            label: the right one, with `relabel`.
            given: the given label that was shown, where one was: the table may be another one by now.

        Raises:
            RaycleanError: there is no such row, class or reviewer, or the choice and the labels do not fit.
            OSError: it could not be written.
        """
        with self._lock:
            line = self.queue.line(row)
            if choice == Choice.UNDO or (label is not None) != (choice == Choice.RELABEL):
                raise InputError(f"decision {choice} with label {label}: expected a label with relabel, and only there")
            if label is not None and self.queue.label_of(label) is None:
                raise InputError(f"label {label!r:.99} is none of the table's {len(self.queue.names)} classes")
            has = self.queue.names[line["given_label"]]
            if given not in (None, has):
                raise InputError(f"the table has changed: row {row} is labelled {has!r} now; load the page again")
            if label == has:
                choice, label = Choice.KEEP, None
            facts = {"row": row, "shard": line["shard"], "key": line["key"]}
            entry = Entry(**facts, given=has, decision=choice, label=label, time=_now())
            log = self.open_log(reviewer)
            before = latest(log.entries).get(entry.sample)
            if before is None or before.model_copy(update={"time": entry.time, "row": entry.row}) != entry:
                log.append(entry)  # else it was sent twice

    def undo(self, reviewer: str) -> int | None:
        """Takes back the last decision of a reviewer that still stands.

        Returns:
            Its row; None where nothing stands, or the table has the sample no more.

        Raises:
            RaycleanError: see `open_log`.
            OSError: it could not be written.
        """
        with self._lock:
            log = self.open_log(reviewer)
            stand = standing(log.entries)
            if not stand:
                return None
            update = {"decision": Choice.UNDO, "label": None, "time": _now()}
            log.append(stand[-1].model_copy(update=update))
            self.queue.place(stand[-1:])
            row = self.queue.row_of.get(stand[-1].sample)
            if row is not None and row not in self.queue.rows and self.queue.chosen is None:  # of an earlier start
                self.queue.rows.insert(0, row)
            return row

    def rows(self, reviewer: str, view: View) -> list[int]:
        """The rows of a view, in its order; opens the reviewer's log where there is one."""
        reviewer = checked_reviewer(reviewer)
        with self._lock:
            self._refresh()
            if (self._run / log_name(reviewer)).exists():
                self.open_log(reviewer)
            decisions = self._decisions()
            mine = decisions.get(reviewer, {})
            decided = _samples(decisions)
            if view == View.OPEN:
                found = self._undecided(decided)
                if not found:
                    self._fill()
                    found = self._undecided(decided)
                return found
            self.queue.place(entry for of_one in decisions.values() for entry in of_one.values())
            if view == View.MINE:
                samples = [entry.sample for entry in reversed(standing(self._entries(reviewer)))]
            elif view == View.OTHERS:
                samples = [sample for sample in decided if sample not in mine]
            else:
                samples = settle(decisions).disputed
            rows = (self.queue.row_of.get(sample) for sample in dict.fromkeys(samples))
            return [row for row in rows if row is not None]

    def item(self, reviewer: str, row: int, view: View) -> Facts:
        """What a reviewer sees of a row; what others say only once it is decided, or where reviewers differ."""
        reviewer = checked_reviewer(reviewer)
        with self._lock:
            line, decisions = self.queue.line(row), self._decisions()
            sample = self.queue.sample(row)
            said = {who: of_one[sample] for who, of_one in decisions.items() if sample in of_one}
            mine = said.pop(reviewer, None)
            is_open = mine is not None or view == View.DISPUTED
            others = [self._said(entry) | {"reviewer": who} for who, entry in said.items()] if is_open else []
            return {
                "row": row,
                "shard": line["shard"],
                "key": line["key"],
                "given": self.queue.class_of(line["given_label"]),
                **judgement(self.queue, line),
                "choices": self._choices(reviewer, line),
                "mine": mine and self._said(mine),
                "num_others": len(said),
                "others": others,
            }

    def progress(self) -> Facts:
        """How much is done, and by whom; of a sample what is done of it."""
        with self._lock:
            decisions = self._decisions()
            decided = _samples(decisions)
            known = {self.queue.row_of[sample] for sample in decided if sample in self.queue.row_of}
            done = known if self.queue.chosen is None else known.intersection(self.queue.rows)
            outcome = settle(decisions)
            return {
                "done": len(done),
                "total": len(done.union(self.queue.rows)),
                "flagged_left": self.queue.num_flagged - len(known & self.queue.flagged) if known is done else None,
                "elsewhere": len(decided) - len(known),
                "reviewers": [{"name": who, "done": len(decisions[who])} for who in sorted(decisions)],
                "agreed": len(outcome.labels),
                "disputed": len(outcome.disputed),
            }

    def is_wrong(self) -> dict[Sample, bool]:
        """Whether the given labels are wrong, of those rows that are offered and that people agree on."""
        with self._lock:
            labels = settle(self._decisions()).labels
            given = {self.queue.sample(row): self.queue.line(row)["given_label"] for row in self.queue.rows}
            return {each: labels[each] != self.queue.names[given[each]] for each in given if each in labels}

    def close(self) -> None:
        """Lets go of all logs."""
        with self._lock:
            for log in self._logs.values():
                log.close()
            self._logs.clear()

    def _choices(self, reviewer: str, line: Facts) -> list[Facts]:
        """Classes with their keys; where there are too many, the likely ones and those that were chosen lately."""
        keys = self._keys
        if keys is None:
            lately = (self.queue.label_of(entry.label) for entry in reversed(self._entries(reviewer)))
            keys = likely_keys([*likely_labels(self.queue, line), *lately])
        return [{"key": key, "label": label, "name": self.queue.names[label]} for label, key in keys.items()]

    def _said(self, entry: Entry) -> Facts:
        return {"decision": entry.decision.value, "label": self.queue.class_named(entry.label)}

    def _undecided(self, decided: set[Sample] | dict[Sample, None]) -> list[int]:
        return [row for row in self.queue.rows if self.queue.sample(row) not in decided]

    def _fill(self) -> None:
        decisions = self._decisions()
        self.queue.place(entry for of_one in decisions.values() for entry in of_one.values())
        self.queue.fill(_samples(decisions))

    def _refresh(self) -> None:
        """Takes a new table in, where a run has published one."""
        queue = self._open_queue(self.queue.merge)
        if queue is not None:
            self.close()  # the same lines may be called otherwise now
            self._take(queue)

    def _take(self, queue: Queue) -> None:
        self.queue, self._keys, self._naming = queue, fixed_keys(queue.names), self._name(queue.names)
        self._read.clear()
        self._fill()

    def _decisions(self) -> dict[str, dict[Sample, Entry]]:
        """By reviewer and sample, of all logs."""
        names = sorted(path.name.removesuffix(SUFFIX) for path in (self._run / REVIEW).glob(f"*{SUFFIX}"))
        return {who: latest(self._entries(who)) for who in names}

    def _entries(self, reviewer: str) -> list[Entry]:
        """Of a log of ours as we know it, of others as far as they have been written."""
        if reviewer in self._logs:
            return self._logs[reviewer].entries
        path = self._run / log_name(reviewer)
        if not path.exists():
            return []
        facts = path.stat()
        mark = facts.st_size, facts.st_mtime_ns
        if reviewer not in self._read or self._read[reviewer][0] != mark:
            found = read_entries(
                path.read_bytes(), log_name(reviewer), lambda classes: self._naming.names_now(reviewer, classes)
            )
            self._read[reviewer] = mark, found.entries
        return self._read[reviewer][1]


def _samples(decisions: dict[str, dict[Sample, Entry]]) -> dict[Sample, None]:
    """All decided samples, each once."""
    return dict.fromkeys(sample for of_one in decisions.values() for sample in of_one)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def parse_view(text: str) -> View:
    """A view by its name.

    Raises:
        ConfigError: there is none.
    """
    try:
        return View(text)
    except ValueError:
        raise ConfigError(f"view {text!r}: expected one of {', '.join(View)}") from None

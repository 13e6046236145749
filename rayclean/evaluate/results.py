"""What a finished run says, beside its table: how good it is where the truth is known, and its exit code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rayclean.catalog.stage import ONE_BASED
from rayclean.config import PLANT, Config
from rayclean.errors import InputError
from rayclean.evaluate.evaluate import Evaluation, evaluate, read_truth, truth_by_shard
from rayclean.evaluate.simulated import PLANTED, SimulatedLosses, histograms, split_by_truth
from rayclean.run.families import influences, odd, planted_check
from rayclean.run.run import Run
from rayclean.run.start import look_at_current
from rayclean.schema import UNKNOWN, Array
from rayclean.scores.influence_stage import SOLVER_FILE
from rayclean.scores.simulate_stage import CHECK
from rayclean.storage.contents import read_json
from rayclean.storage.store import Store

DAMPED = 0.9  # from this share on OSM's order is nearly that of the gradients' norms


def evaluate_run(config: Config) -> Evaluation:
    """Compares a finished run with its truth.

    Raises:
        InputError: the table is not complete, or the run has no truth.
    """
    if not config.has_truth:
        raise InputError(f"{config.run.dir} has no truth to compare with; set data.truth where the shards hold it")
    this, table = look_at_current(config, Store(config.run.dir))
    labels = read_truth(this.catalog)
    if not (labels != UNKNOWN).any():
        raise InputError(f"{config.run.dir}: data.truth ({config.data.truth}) is set, but no sample has it")
    simulated = _simulated(this, labels)
    return evaluate(
        this.score_files(), this.main.last.epoch, labels, table.summary(), config.merge.threshold, simulated
    )


def _simulated(this: Run, labels: Array) -> list[SimulatedLosses]:
    """The rows' losses beside those of random labels, for ODD, and the planted labels' for its check."""
    found = []
    if (judged := odd(this)) is not None:
        simulation, rows = judged
        losses = split_by_truth(rows.losses(), rows.catalog.label, labels)
        role = this.config.simulated_loss.role
        found.append(histograms(role, rows.snapshot.epoch, *simulation.simulated(), losses))
    if (planted := planted_check(this)) is not None:
        simulation, check = planted
        losses = {PLANTED: check.losses()}
        found.append(histograms(PLANT, check.snapshot.epoch, *simulation.simulated(), losses))
    return found


def true_noise_rate(this: Run) -> float | None:
    """Share of wrong labels by the truth, None where the run has none; for people, never for the table."""
    if not this.config.has_truth:
        return None
    known = wrong = 0
    for rows, truth in truth_by_shard(this.catalog):  # the driver holds no column of a large run
        known += int((truth != UNKNOWN).sum())
        wrong += int(((truth != UNKNOWN) & (truth != this.catalog.label[rows])).sum())
    return wrong / known if known else None


def warnings(this: Run) -> list[str]:
    """What is to be known before a score of a finished run is trusted."""
    found = []
    solved, planted = influences(this), planted_check(this)
    if solved:
        last = list(solved.values())[-1]
        share = read_json(this.store, f"{last[0].folder}/{SOLVER_FILE}")["damping_share"]
        if share > DAMPED:
            found.append(
                f"osm and osd: the damping decides {share:.0%} of the influence, since the network is sure of nearly "
                "every label; they then order by the gradient's size. Take another network (influence.role) or score"
            )
    if planted is not None:
        check = read_json(this.store, planted[1].file(CHECK))
        if check["follows"] is False:
            found.append(
                f"odd: {check['planted']} planted uniform labels do not follow the simulated losses (distance "
                f"{check['distance']:.2f}); try another simulated_loss.kind than {this.config.simulated_loss.kind}"
            )
    return found


def doubts(summary: Mapping[str, Any]) -> list[str]:
    """Which beliefs say nothing of the labels, and why, by the summary of a table."""
    return [f"{name}: {doubt}" for name, doubt in summary.get("doubts", {}).items()]


def exit_code(config: Config, summary: dict[str, Any]) -> int:
    """0, or 3 where more samples or shards are bad than `data.max_bad_share` allows, or labels count from 1."""
    quarantined = sum(summary["quarantined"].values()) / max(summary["samples"], 1)
    truncated = summary["truncated_shards"] / max(summary["shards"], 1)
    is_bad = max(quarantined, truncated) > config.data.max_bad_share or ONE_BASED in summary
    return 3 if is_bad else 0

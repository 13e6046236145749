"""What our families of scores add to a run: functions that `rayclean.config.score_families` names."""

from __future__ import annotations

from rayclean.config import MAIN, PLANT, THRESHOLDED
from rayclean.config.score_families import FAMILIES
from rayclean.run.run import Run
from rayclean.scores.aum_stage import ThresholdedRole, aum_jobs
from rayclean.scores.family import Added, BlockFiles
from rayclean.scores.influence_stage import FitJob as InfluenceFitJob
from rayclean.scores.influence_stage import RawJob, SolveJob, influence_jobs
from rayclean.scores.readers import (
    InfluenceReader,
    OutOfFoldReader,
    SimulatedReader,
    Trained,
    TrajectoryReader,
    WalkReader,
)
from rayclean.scores.simulate_stage import CheckJob, JudgeJob, ThresholdJob, simulate_jobs
from rayclean.scores.trajectory_stage import trajectory_job
from rayclean.train.plan import role_seed
from rayclean.train.snapshots import Snapshot

WALKED = ("iofm", "inn")


def trajectory(run: Run) -> Added:
    """The trajectory scores of each role that has epochs and of which any are wanted; `main`'s always."""
    rows, scores = run.config.blocks.rows, FAMILIES.scores()
    wanted = {scores[name].role for name in run.config.score_names()} | {MAIN}
    trained = {name: role.trained for name, role in run.roles.items() if name in wanted and role.trained.epochs}
    jobs = {
        name: trajectory_job(run.catalog, each.folder, each.trajectories, each.epochs, rows)
        for name, each in trained.items()
    }
    reader = TrajectoryReader(
        run.main.embed(run.main.last).embedding,
        {name: job.folder for name, job in jobs.items()},
        {name: Trained(each.folder, each.epochs) for name, each in trained.items()},
    )
    return Added(tuple(jobs.values()), reader)


def interpolation(run: Run) -> Added | None:
    """IOFM and INN, by the run's walks."""
    walked = {name: {walk.snapshot.epoch: run.interpolate(walk) for walk in run.walks_of(name)} for name in WALKED}
    iofm, inn = (
        BlockFiles(
            run.store, name, {epoch: job.folder for epoch, job in jobs.items()}, ("score",), run.config.blocks.rows
        )
        for name, jobs in walked.items()
    )
    jobs = tuple(job for by_epoch in walked.values() for job in by_epoch.values())
    return Added(jobs, WalkReader(iofm, inn)) if jobs else None


def vote(run: Run) -> Added:
    """The vote of the nearest rows; the nearest rows themselves are evidence of every row."""
    jobs = {snapshot.epoch: run.vote(snapshot) for snapshot in run.voted}
    folders = {epoch: job.folder for epoch, job in jobs.items()}
    return Added(tuple(jobs.values()), BlockFiles(run.store, "vote", folders, ("vote",), run.config.blocks.rows))


def influences(run: Run) -> dict[Snapshot, tuple[SolveJob, RawJob, InfluenceFitJob]]:
    """The steps of the influence scores, in order of the snapshots; none where no score needs them."""
    names, settings = run.config.score_names(), run.config.influence
    if not {"osm", "osd"} & set(names):
        return {}
    role, known = run.roles[settings.role], run.derived.get("held_out", run.validation)
    found = {}
    for snapshot in role.trained.snapshots:
        if snapshot.epoch in (*settings.epochs, role.last.epoch):
            embed, verified = role.embed(snapshot), None
            if "osd" in names and known is not None:
                verified = known, role.embed(snapshot, known)
            by_clip, seed = run.config.data.group_by == "gradient", run.config.run.seed
            found[snapshot] = influence_jobs(run.catalog, embed, verified, settings, seed, by_clip)
    return found


def influence(run: Run) -> Added | None:
    """OSM and OSD."""
    if not (found := influences(run)):
        return None
    folders = {snapshot.epoch: jobs[0].folder for snapshot, jobs in found.items()}
    reader = InfluenceReader(run.store, folders, run.config.influence.standardize, run.config.blocks.rows)
    return Added(tuple(fit for *_, fit in found.values()), reader)


def aum(run: Run) -> Added | None:
    """AUM beside that of threshold samples."""
    if "aum_excess" not in run.config.score_names():
        return None
    trained = [(run.roles[name].catalog, run.roles[name].trained) for name in THRESHOLDED]
    roles = tuple(ThresholdedRole(rows, each.folder, each.trajectories, each.epochs) for rows, each in trained)
    block_rows = run.config.blocks.rows
    thresholds, excess = aum_jobs(roles, block_rows)
    folders = {run.main.last.epoch: f"{thresholds.folder}/rows"}
    return Added((excess,), BlockFiles(run.store, "aum", folders, ("aum_excess",), block_rows))


def out_of_fold(run: Run) -> Added | None:
    """Loss and margin by heads on features that have not seen the row's label."""
    names = tuple(name for name in ("loss_oof", "margin_oof") if name in run.config.score_names())
    if not names:
        return None
    job, task = run.heads.blind, run.heads.task
    folders = {run.main.last.epoch: job.folder}
    judged = BlockFiles(run.store, "out_of_fold", folders, names, run.config.blocks.rows)
    return Added((job,), OutOfFoldReader(judged, task.blind_folder, task.blind_epochs()))


def simulated(run: Run) -> Added | None:
    """ODD."""
    if (steps := odd(run)) is None:
        return None
    threshold, judge = steps
    folders, block_rows = {judge.snapshot.epoch: f"{threshold.folder}/rows"}, run.config.blocks.rows
    judged = BlockFiles(run.store, "simulate", folders, ("odd",), block_rows, ("odd_quantile", "odd_drop"))
    trained = run.roles[run.config.simulated_loss.role].trained
    reader = SimulatedReader(judged, Trained(trained.folder, trained.epochs), run.config.simulated_loss.average)
    return Added((judge,), reader)


def odd(run: Run) -> tuple[ThresholdJob, JudgeJob] | None:
    """The steps of ODD; None where it is not wanted."""
    if "odd" not in run.config.score_names():
        return None
    return _simulation(run, run.config.simulated_loss.role)[:2]


def planted_check(run: Run) -> tuple[ThresholdJob, CheckJob] | None:
    """The steps that compare planted labels with the simulation; None without role `plant`."""
    if PLANT not in run.planted:
        return None
    threshold, _, check = _simulation(run, PLANT)
    return threshold, check


def _simulation(run: Run, name: str) -> tuple[ThresholdJob, JudgeJob, CheckJob]:
    settings, role = run.config.simulated_loss, run.roles[name]
    trained = role.trained
    last = min(settings.epoch_of(trained.epochs), trained.epochs)  # heads may learn fewer epochs than it names
    snapshot = next(each for each in trained.snapshots if each.epoch == last)
    embed = role.embed(snapshot) if settings.kind != "gauss" else None
    seed = role_seed(run.config.run.seed, PLANT) if name == PLANT else run.config.run.seed
    block_rows = run.config.blocks.rows
    return simulate_jobs(
        role.catalog, snapshot, embed, trained.folder, trained.trajectories, settings, seed, block_rows
    )

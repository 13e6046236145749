"""What is left of a run once its table is published."""

from __future__ import annotations

from rayclean.run.grow import grow
from rayclean.run.run import Run

KEPT = ("catalog", "train")


def tidy(run: Run) -> None:
    """Removes what no later stage reads, unless `run.keep` is `all`.

    Stay: what the run is for, and what that reads itself: snapshots, trajectories, scores, beliefs, the last snapshots'
    embeddings. A later start with another merge needs no more; one with other neighbours computes them again.
    """
    if run.config.run.keep == "all":
        return
    graph = grow(run)
    if graph.unnamed:
        return
    targets = [graph.jobs[key] for key in graph.targets]
    kept = {job.folder for target in targets for job in (target, *target.after)}
    for folder in dict.fromkeys(job.folder for job in graph.jobs.values() if job.stage not in KEPT):
        if folder not in kept:
            run.store.remove(folder)

"""What is left of a run once its table is published."""

from __future__ import annotations

from rayclean.run.grow import grow
from rayclean.run.run import Run

BY_CONTENT = ("catalog", "train")


def tidy(run: Run) -> None:
    """Removes what no later stage reads, unless `run.keep` is `all`.

    Stay the targets of its graph: scores, beliefs, the last snapshots' embeddings, the table; and what is named by its
    content: catalogs, snapshots, trajectories. A later start with another merge needs no more; one with other
    neighbours computes them again.
    """
    if run.config.run.keep == "all":
        return
    graph = grow(run)
    if graph.unnamed:
        return
    kept = {folder for _, folder in graph.targets}
    for folder in dict.fromkeys(job.folder for job in graph.jobs.values() if job.stage not in BY_CONTENT):
        if folder not in kept:
            run.store.remove(folder)

"""What a config leads to: the table of contents of a run.

`grow` is a pure function of a config and of what is published. What it cannot name yet, since it is named by what
others will hold, it says; the same question is asked again when those are there.
"""

from __future__ import annotations

from rayclean.catalog.columns_stage import ColumnsJob
from rayclean.catalog.derive_stage import DeriveJob, PlanJob
from rayclean.catalog.stage import CatalogJob, EmbedShardsJob, scan_settings
from rayclean.catalog.table import SOURCES_FILE, Catalog
from rayclean.config import MAIN, THRESHOLDED, DataSection
from rayclean.config.score_families import FAMILIES
from rayclean.run.families import planted_check
from rayclean.run.run import Run
from rayclean.storage.contents import read_table
from rayclean.storage.graph import Graph, Missing, Unnamed
from rayclean.storage.units import Job
from rayclean.train.stage import TrainJob

THRESHOLD_SAMPLES = "threshold samples"  # which are a class more
# Ours, in the order of the path of the data.
STAGES = (
    "catalog",
    "train",
    "trajectory",
    "embed",
    "neighbors",
    "pairs",
    "paths",
    "interpolate",
    "vote",
    "influence",
    "simulate",
    "aum",
    "merge",
)


def stages() -> tuple[str, ...]:
    """All stages, in the order of the path of the data; those of families from outside before the merge."""
    return (*STAGES[:-1], *(stage for stage in FAMILIES.stages() if stage not in STAGES), STAGES[-1])


def grow(run: Run) -> Graph:
    """The jobs of a run, as far as they can be named by now."""
    graph = Graph()
    graph.want(*catalog_jobs(run))
    graph.want(*graph.jobs.values())  # the rows of each shard too: keys and truth are read from them later
    if any(map(Missing(), graph.jobs.values())):
        graph.unnamed += [Unnamed(stage, "after catalog") for stage in stages()[1:]]
        return graph
    trainings = train_jobs(run)
    graph.want(*trainings)
    run.known.update(job.label for job in trainings if job.label not in run.known and not job.missing())
    untrained = frozenset(run.roles) - run.known
    if untrained:
        if MAIN not in untrained:
            graph.want(*run.without(untrained).score_jobs())  # beside the trainings that are left
        graph.unnamed += [Unnamed(stage, "after training") for stage in stages()[2:]]
        return graph
    graph.want(*run.score_jobs())  # evaluate, report and another merge read them
    if (check := planted_check(run)) is not None:
        graph.want(*check[1:])
    for merge in (run.merge(), run.merge_clips()):
        graph.want(*(merge or ())[1:])
    return graph


def catalog_jobs(run: Run) -> list[Job]:
    """The tables of rows: of the shards, of verified samples; derived ones, and those with planted labels."""
    done: dict[str, Job] = {}
    for catalog, data, verified in _scanned(run):
        sources = read_table(run.store, f"{catalog.folder}/{SOURCES_FILE}", ["name"])
        settings, frozen = scan_settings(data, run.source_classes, verified), run.config.model.frozen
        kind, features = EmbedShardsJob if frozen else CatalogJob, run.features
        scan = kind(run.store, catalog.folder, settings, sources.num_rows, features, run.config.on_features)
        is_source = catalog is run.source
        done[catalog.folder] = _joined(run, catalog, run.source_classes.names, scan, is_source)
    source = done[run.source.folder]
    for keeps, catalog in run.derived.items():
        plan = PlanJob(run.store, catalog.folder, run.source, run.derivation(keeps), after=(source,))
        derive = DeriveJob(run.store, catalog.folder, run.source, run.derivation(keeps), after=(source, plan))
        done[catalog.folder] = _joined(run, catalog, run.classes.names, derive)
    given = done[run.catalog.folder]
    for name, catalog in run.planted.items():
        if (planting := run.planting(name)) is not None:
            derive = DeriveJob(run.store, catalog.folder, run.catalog, planting, after=(given,))
            more = (THRESHOLD_SAMPLES,) if name in THRESHOLDED else ()
            done[catalog.folder] = _joined(run, catalog, run.classes.names + more, derive)
    return list(done.values())


def _scanned(run: Run) -> list[tuple[Catalog, DataSection, str | None]]:
    """The catalogs that are read from shards: the data's, and the verified samples' where these have their own.

    With where the labels of rows kept apart are, if not where the given ones are.
    """
    verified = run.config.validation_data()
    found: list[tuple[Catalog, DataSection, str | None]] = [(run.source, run.config.data, run.config.verified_label)]
    return [*found, (run.validation, verified, None)] if run.validation and verified else found


def _joined(run: Run, catalog: Catalog, classes: tuple[str, ...], shards: Job, is_source: bool = False) -> ColumnsJob:
    return ColumnsJob(run.store, catalog.folder, classes, is_source, after=(shards,))


def train_jobs(run: Run) -> list[TrainJob]:
    """The trainings, `main` first."""
    return [role.job for role in run.roles.values()]

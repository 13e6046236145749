"""The jobs of each step of a run, from what the steps before have published."""

from __future__ import annotations

from collections.abc import Sequence

from rayclean.catalog.derive_stage import Derivation, DeriveJob, PlanJob
from rayclean.catalog.stage import SOURCES_FILE, CatalogJob, ColumnsJob, scan_settings
from rayclean.catalog.table import Catalog
from rayclean.config import THRESHOLDED, DataSection
from rayclean.embed.table import Embedding
from rayclean.neighbors.index import IndexSettings
from rayclean.neighbors.ivf_stage import ProbesJob, QuantizerJob
from rayclean.neighbors.stage import AnyLabelJob, IndexJob, SameLabelJob
from rayclean.run.run import Run
from rayclean.run.walks import Space, Walk
from rayclean.storage.contents import read_table
from rayclean.storage.store import Store
from rayclean.storage.units import Job


def _scanned(run: Run) -> list[tuple[Catalog, DataSection, str | None]]:
    """The catalogs that are read from shards: the data's, and the verified samples' where these have their own.

    With where the labels of rows held out are, if not where the given ones are.
    """
    verified = run.config.validation_data()
    found: list[tuple[Catalog, DataSection, str | None]] = [(run.source, run.config.data, run.config.verified_label)]
    return [*found, (run.validation, verified, None)] if run.validation and verified else found


def scan_jobs(run: Run) -> list[Job]:
    """Every sample read once."""
    jobs: list[Job] = []
    for catalog, data, verified in _scanned(run):
        sources = read_table(run.store, f"{catalog.folder}/{SOURCES_FILE}", ["name"])
        settings = scan_settings(data, run.source_classes, verified)
        jobs.append(CatalogJob(run.store, catalog.folder, settings, sources.num_rows))
    return jobs


def source_jobs(run: Run) -> list[Job]:
    """The shards' rows joined."""
    return [ColumnsJob(run.store, catalog.folder, run.source_classes.num_classes) for catalog, *_ in _scanned(run)]


def plan_jobs(run: Run) -> list[Job]:
    """What is left out on purpose."""
    return [PlanJob(*_derivation_inputs(run, keeps, catalog)) for keeps, catalog in run.derived.items()]


def derive_jobs(run: Run) -> list[Job]:
    """Rows and labels changed on purpose."""
    return [DeriveJob(*_derivation_inputs(run, keeps, catalog)) for keeps, catalog in run.derived.items()]


def columns_jobs(run: Run) -> list[Job]:
    """The derived rows joined."""
    return [ColumnsJob(run.store, catalog.folder, run.classes.num_classes) for catalog in run.derived.values()]


def plant_jobs(run: Run) -> list[Job]:
    """Labels planted for roles that train on others than the given ones."""
    plans = ((run.planting(name), catalog) for name, catalog in run.planted.items())
    return [DeriveJob(run.store, catalog.folder, run.catalog, plan) for plan, catalog in plans if plan is not None]


def planted_columns_jobs(run: Run) -> list[Job]:
    """The planted rows joined; threshold samples are a class more."""
    sizes = {name: run.classes.num_classes + (name in THRESHOLDED) for name in run.planted}
    return [ColumnsJob(run.store, catalog.folder, sizes[name]) for name, catalog in run.planted.items()]


def _derivation_inputs(run: Run, keeps: str, catalog: Catalog) -> tuple[Store, str, Catalog, Derivation]:
    return run.store, catalog.folder, run.source, run.derivation(keeps)


def embed_jobs(run: Run) -> list[Job]:
    """Trajectory scores of the roles, and what each needed snapshot makes of all rows."""
    return [*run.trajectory_jobs().values(), *run.embeds()]


def family_jobs(run: Run, step: int) -> list[Job]:
    """A step of influence (solve, one pass, fit) and of the simulated loss (threshold, one pass or check)."""
    all_families = (*run.influences().values(), run.simulate(), run.planted_check(), run.aum())
    families: list[tuple[Job, ...]] = [family for family in all_families if family is not None]
    return [family[step] for family in families if step < len(family)]


def quantizer_jobs(run: Run) -> list[Job]:
    """Coarse quantisers, where IVF pays."""
    return [QuantizerJob(*_index_inputs(run, *search)) for search in _searches(run)]


def index_jobs(run: Run) -> list[Job]:
    """Index parts."""
    return [IndexJob(*_index_inputs(run, *search)) for search in _searches(run)]


def probes_jobs(run: Run) -> list[Job]:
    """How many cells are searched, where IVF pays."""
    return [
        ProbesJob(run.store, run.lists_folder(space, num), run.catalog, run.index_settings(space), num)
        for space, num in _searches(run)
    ]


def list_jobs(run: Run) -> list[Job]:
    """Lists of neighbours."""
    same = {(walk.space, walk.num): None for walk in run.open_walks if not walk.any_label}
    any_label = {(walk.space, walk.num): None for walk in run.open_walks if walk.any_label}
    any_label |= dict.fromkeys(_votes(run))
    return [
        *(SameLabelJob(*_list_inputs(run, *search)) for search in same),
        *(AnyLabelJob(*_list_inputs(run, *search)) for search in any_label),
    ]


def _rounds(walks: Sequence[Walk], index: int) -> list[Walk]:
    """The rounds of this index of walks that have so many."""
    return [walk.rounds[index] for walk in walks if len(walk.rounds) > index]


def decide_jobs(run: Run, index: int, step: int) -> list[Job]:
    """A step (fit, mark) from a round to that of this index."""
    walks = _rounds(run.open_walks, index)
    return [run.between_rounds(walk.before)[step] for walk in walks if walk.before]


def pairs_jobs(run: Run, index: int) -> list[Job]:
    """A round's pairs; two walks may share them."""
    return list({job.folder: job for job in map(run.pairs, _rounds(run.open_walks, index))}.values())


def paths_jobs(run: Run, index: int) -> list[Job]:
    """A round's paths."""
    return [run.paths(walk) for walk in _rounds(run.open_walks, index)]


def interpolate_jobs(run: Run, index: int) -> list[Job]:
    """A round's interpolation scores, also those that are done; the votes go with the first one's."""
    done = [walk for walk in run.walks if walk not in run.open_walks] if index == 0 else []
    votes = map(run.vote, run.voted) if index == 0 else ()
    return [*votes, *map(run.interpolate, [*done, *_rounds(run.open_walks, index)])]


def merge_jobs(run: Run, step: int) -> list[Job]:
    """A step of the merge (fit, apply) of rows, and of clips."""
    return [merge[step] for merge in (run.merge(), run.merge_clips()) if merge is not None]


def _index_inputs(run: Run, space: Space, num: int) -> tuple[Store, str, Catalog, Embedding, IndexSettings]:
    return run.store, run.lists_folder(space, num), run.catalog, space.embedding, run.index_settings(space)


def _list_inputs(run: Run, space: Space, num: int) -> tuple[Store, str, Catalog, IndexSettings, int, int]:
    folder, settings = run.lists_folder(space, num), run.index_settings(space)
    return run.store, folder, run.catalog, settings, num, run.config.blocks.rows


def _votes(run: Run) -> list[tuple[Space, int]]:
    """The searches for votes and for the table's evidence, while they are missing."""
    return [(space, run.config.neighbors.vote_num) for space in run.open_votes]


def _searches(run: Run) -> list[tuple[Space, int]]:
    """Spaces that need an index, with the length of their lists: those of open walks and votes."""
    return list(dict.fromkeys([*((walk.space, walk.num) for walk in run.open_walks), *_votes(run)]))

"""Does it tell more of a label where its influence points than how strong or uneven it is? On features, by cell.

    RAYCLEAN_CIFAR10N=... .venv/bin/python tools/cells/influence_direction.py human aggregate asymmetric symmetric80

`harm` of a row is the largest mean influence, with its sign, on the loss of one class's verified samples: above 0 the
row, as it is labelled, harms a class. It is a mean and a maximum on what OSD solves. Beside it OSM, OSD and the
loss by heads that have not seen the label; five verified samples per class, of the test images. AUROC of finding the
wrong labels, one line per cell.
"""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Iterator, Sequence

import numpy as np

from rayclean.config import load_config
from rayclean.evaluate.evaluate import truth_by_shard
from rayclean.evaluate.metrics import auroc
from rayclean.run.families import influences
from rayclean.run.run import Run
from rayclean.run.saved import CONFIG_FILE
from rayclean.run.start import look
from rayclean.schema import Array
from rayclean.scores.influence import residuals, validation_influence
from rayclean.storage.contents import map_arrays
from rayclean.storage.store import Store
from rayclean.storage.units import num_blocks
from tools.cells.features import CELLS, CONFIG, RAYCLEAN, RUNS

VERIFIED = (
    "influence.validation=${RAYCLEAN_CIFAR10N}/cifar10n-test-*.tar",
    "influence.validation_label=json:clean_label",
    "scores=[loss, osm, osd]",
)


def mean_harm(influence: Array, labels: Array) -> Array:
    """(N,) the largest mean over a class's verified samples of influence (N, V); higher is more suspicious."""
    means = np.stack([influence[:, labels == label].mean(axis=1) for label in np.unique(labels)])
    return np.asarray(means.max(axis=0))


def harms(this: Run) -> Iterator[Array]:
    """Harms of all rows, block by block."""
    solve, _, _ = influences(this)[this.main.last]
    solved = map_arrays(this.store, solve.file(solve.units()[0]))
    embedding, total = solve.embedding, this.catalog.num_rows
    for block in range(num_blocks(total, embedding.block_rows)):
        rows = np.arange(block * embedding.block_rows, min((block + 1) * embedding.block_rows, total))
        residual = residuals(embedding.logits(rows), np.asarray(this.catalog.label[rows]))
        yield mean_harm(
            validation_influence(solved["validation"], residual, embedding.features(rows)), solved["labels"]
        )


def line(name: str, seed: int) -> str:
    """A line of the table."""
    cell = CELLS[name]
    subprocess.run([RAYCLEAN, "run", CONFIG, *cell.overrides(seed), *VERIFIED], check=True)
    folder = RUNS / cell.data.lower()
    this = look(load_config(folder / CONFIG_FILE, ()), Store(str(folder)))
    clean = np.empty(this.catalog.num_rows, bool)
    for rows, truth in truth_by_shard(this.catalog):
        clean[rows] = truth == this.catalog.label[rows]
    files = this.score_files()
    blocks = [files.read(block).scores for block in range(num_blocks(files.num_rows, files.block_rows))]
    scores = {each: np.concatenate([block[each] for block in blocks]) for each in ("osm", "osd", "loss_oof")}
    scores["harm"] = -np.concatenate(list(harms(this)))
    return f"| {name} | {seed} | " + " | ".join(f"{auroc(values, clean):.3f}" for values in scores.values()) + " |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", nargs="+", choices=list(CELLS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    print("| cell | seed | osm | osd | loss_oof | harm |", "|---|--:|--:|--:|--:|--:|", sep="\n")
    for name in options.cells:
        print(line(name, options.seed), flush=True)


if __name__ == "__main__":
    main()

"""How many workers of a pool fit which nodes: arithmetic on what each node has, since a worker never spans two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rayclean.config import Pool
from rayclean.errors import ConfigError

ROUNDING = 1e-6  # Ray counts in units of 1e-4; 0.3 / 0.1 is a little less than 3


@dataclass(frozen=True)
class Workers:
    """A pool's size, settled: how many actors, and what each may use."""

    actors: int
    cpus: float
    gpus: float
    device: str

    @property
    def threads(self) -> int:
        """Threads of one actor; Ray sets OMP_NUM_THREADS to it."""
        return max(1, int(self.cpus))


@dataclass(frozen=True)
class NodeSize:
    """What one node has."""

    cpus: float
    gpus: float

    def room(self, cpus: float, gpus: float) -> int:
        """How many workers of this size fit."""
        asked = [(self.cpus, cpus), *([(self.gpus, gpus)] if gpus else [])]
        return min(int(there / each + ROUNDING) for there, each in asked)


def room(nodes: Sequence[NodeSize], cpus: float, gpus: float) -> int:
    """How many workers of this size fit the nodes together."""
    return sum(node.room(cpus, gpus) for node in nodes)


def in_words(nodes: Sequence[NodeSize]) -> str:
    """What is there, for people: alike nodes together, the largest first."""
    counts = {size: nodes.count(size) for size in sorted(set(nodes), key=lambda n: (n.gpus, n.cpus), reverse=True)}
    each = [f"{count} of {size.cpus:g} CPUs and {size.gpus:g} GPUs" for size, count in counts.items()]
    return f"the cluster's nodes: {', '.join(each) or 'none'}"


def size_pool(pool: Pool, runs_networks: bool, nodes: Sequence[NodeSize]) -> Workers:
    """Fills what the config leaves open from what the nodes have.

    A pool that runs networks gets one actor per GPU where there are any; any other one per CPU.

    Raises:
        ConfigError: no node has what one actor asks for.
    """
    cpus = pool.cpus if pool.cpus is not None else 1.0
    found = 1.0 if runs_networks and room(nodes, cpus, 1.0) else 0.0
    gpus = found if pool.gpus is None else pool.gpus
    fitting = room(nodes, cpus, gpus)
    if not fitting:
        raise ConfigError(
            f"an actor of {cpus:g} CPUs and {gpus:g} GPUs does not fit any node ({in_words(nodes)}); lower resources"
        )
    return Workers(pool.actors or fitting, cpus, gpus, "cuda" if gpus else "cpu")


def size_pools(cpu: Pool, gpu: Pool, nodes: Sequence[NodeSize]) -> tuple[Workers, Workers]:
    """The pools `cpu` and `gpu`; they are one where no node has a GPU, or none has CPUs left beside those.

    Raises:
        ConfigError: no node has what one actor asks for.
    """
    wants_gpus = gpu.gpus != 0 and any(node.gpus for node in nodes)
    if not wants_gpus:
        found = size_pool(cpu, False, nodes)
        return found, found
    networks = size_pool(gpu, True, nodes)
    left, actors = [], networks.actors
    for node in nodes:
        here = min(actors, node.room(networks.cpus, networks.gpus))
        actors -= here
        left.append(NodeSize(node.cpus - here * networks.cpus, 0.0 if networks.gpus else node.gpus))
    if cpu.actors is None and not room(left, cpu.cpus or 1.0, cpu.gpus or 0.0):
        return networks, networks
    others = size_pool(cpu, False, nodes if cpu.actors is not None else left)
    return others, networks


def beside(training: Workers, pools: Sequence[Workers], nodes: Sequence[NodeSize]) -> list[int]:
    """How many actors of each pool, the first ones first, find room beside training's workers."""
    cpus = sum(node.cpus for node in nodes) - training.actors * training.cpus
    gpus = sum(node.gpus for node in nodes) - training.actors * training.gpus
    sizes = []
    for workers in pools:
        fitting = max(0, NodeSize(cpus, gpus).room(workers.cpus, workers.gpus))
        sizes.append(min(workers.actors, fitting))
        cpus, gpus = cpus - sizes[-1] * workers.cpus, gpus - sizes[-1] * workers.gpus
    return sizes


def size_training(pool: Pool, num_workers: int, nodes: Sequence[NodeSize]) -> Workers:
    """Training workers: one GPU each where there are enough, else as many CPUs each as let all of them find a node.

    Raises:
        ConfigError: they do not all find a node.
    """
    found = 1.0 if room(nodes, pool.cpus or 1.0, 1.0) >= num_workers else 0.0
    gpus, cpus = found if pool.gpus is None else pool.gpus, pool.cpus
    if cpus is None:
        most = 1 if gpus else max((int(node.cpus) for node in nodes), default=1)
        cpus = next((float(n) for n in range(most, 1, -1) if room(nodes, n, gpus) >= num_workers), 1.0)
    if room(nodes, cpus, gpus) < num_workers:
        raise ConfigError(
            f"{num_workers} training workers of {cpus:g} CPUs and {gpus:g} GPUs do not fit the cluster "
            f"({in_words(nodes)}); lower train.workers or resources.train"
        )
    return Workers(num_workers, cpus, gpus, "cuda" if gpus else "cpu")

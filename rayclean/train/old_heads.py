"""Heads of an earlier run on features, which `train.from` names: they judge new shards, and nothing is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rayclean.errors import ConfigError, DamagedFile
from rayclean.storage.contents import content_digest, map_arrays, read_json
from rayclean.storage.store import Store
from rayclean.train.heads import HeadSettings

ALL_HEADS, CHOICE_FILE, DONE_FILE = "heads.safetensors", "choice.json", "trained.json"


@dataclass(frozen=True)
class OldHeads:
    """A role of an earlier run.

    Attributes:
        store: that run's files.
        folder: the role's.
        facts: its `choice.json`: weight decay, settings, seed of the folds, classes, where the statistics are.
        digest: of what the heads are.
    """

    store: Store
    folder: str
    digest: str
    facts: dict[str, Any] = field(compare=False)

    @property
    def settings(self) -> HeadSettings:
        """How they have learned."""
        fields = self.facts["settings"]
        return HeadSettings(**{**fields, "weight_decays": tuple(fields["weight_decays"])})

    @property
    def mark(self) -> str:
        """Of the features that they are of."""
        return str(self.facts["features"])

    def snapshot(self, decay: int, name: str) -> dict[str, Any]:
        """Arrays of the seeing head of a weight decay, by its file's name."""
        return dict(map_arrays(self.store, f"{self.folder}/decay-{decay}/{name}"))


def find_old_heads(source: str, role: str) -> OldHeads:
    """The heads of a role of the run that `train.from` names; of several trainings the last one that was finished.

    Raises:
        ConfigError: there is no such run, or it has no finished heads of this role.
    """
    store = Store(source)
    try:
        folders = [name for name in store.list("") if name.startswith(f"train-{role}-")]
        done = [name for name in folders if all(store.exists(f"{name}/{file}") for file in (DONE_FILE, CHOICE_FILE))]
        if not done:
            raise ConfigError(
                f"train.from {source}: found no finished heads of role {role} in it; name the folder or URL of a run "
                "on features (model.frozen or data.features)"
            )
        folder = max(done, key=lambda name: (store.modified_s(f"{name}/{DONE_FILE}"), name))
        facts = read_json(store, f"{folder}/{CHOICE_FILE}")
        return OldHeads(store, folder, content_digest(store, f"{folder}/{ALL_HEADS}"), facts)
    except (OSError, DamagedFile) as e:
        raise ConfigError(f"train.from {source}: cannot be read: {e}") from e

"""What a config and its shards allow to be said before anything starts, so that no user waits for Ray to hear it."""

from __future__ import annotations

import pyarrow as pa

from rayclean.catalog.labels import ClassList
from rayclean.catalog.stage import find_sources
from rayclean.config import Config
from rayclean.decisions.naming import REVIEW
from rayclean.decisions.verified import VerifiedFile
from rayclean.embed.features_stage import check_features
from rayclean.shards.opening import open_shard
from rayclean.shards.tar import TruncatedTar, scan_members
from rayclean.storage.fingerprint import file_digest
from rayclean.train.models.registry import check_model_name


def look_before(config: Config) -> pa.Table:
    """The shards of a run, see `find_sources`; refuses what a look at names, at given files and at one shard refuses.

    Raises:
        ConfigError: a network, a merge or a file that there is none of.
        InputError: shards that cannot be reached, or the first of which is no tar.
    """
    config.merge_score()
    for role in config.role_names():
        check_model_name(config.model_of(role).name)
    verified = config.merge.verified
    if verified not in (None, REVIEW):
        VerifiedFile(verified, file_digest(verified, "merge.verified"), ClassList.of(config.data).names).read()
    if config.inn.file is not None and "inn" in config.score_names():
        check_features(config.inn.file)
    sources = find_sources(config.data)
    _check_first(sources["url"][0].as_py())
    return sources


def _check_first(url: str) -> None:
    """Refuses what is no tar, such as the images themselves; one that is cut has its rows."""
    with open_shard(url) as file:
        try:
            next(scan_members(file, url), None)
        except TruncatedTar:
            return

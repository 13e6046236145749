"""The config: one frozen model per section, YAML plus `section.field=value`, unknown fields refused.

What can be checked without data is checked when it is loaded; what a stage reads of it goes into that stage's
fingerprint (`rayclean.storage.fingerprint`).
"""

from rayclean.config.learn_section import DivideMixSection, LearnSection, RankSection
from rayclean.config.load import (
    dump_config,
    load_config,
    override_config,
    parse_config,
    parse_yaml,
    without_retired,
)
from rayclean.config.score_sections import (
    InfluenceSection,
    InnSection,
    IofmSection,
    SimulatedLossSection,
)
from rayclean.config.sections import (
    DataSection,
    MergeSection,
    ModelSection,
    NoiseSection,
    Pool,
    ResourcesSection,
)
from rayclean.config.train_section import TrainSection
from rayclean.config.tree import PLANT, SELF, THRESHOLDED, Config
from rayclean.schema import MAIN

__all__ = [
    "MAIN",
    "PLANT",
    "SELF",
    "THRESHOLDED",
    "Config",
    "DataSection",
    "DivideMixSection",
    "InfluenceSection",
    "InnSection",
    "IofmSection",
    "LearnSection",
    "MergeSection",
    "ModelSection",
    "NoiseSection",
    "Pool",
    "RankSection",
    "ResourcesSection",
    "SimulatedLossSection",
    "TrainSection",
    "dump_config",
    "load_config",
    "override_config",
    "parse_config",
    "parse_yaml",
    "without_retired",
]

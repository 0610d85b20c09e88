"""The sections of the experiment's config: what can be set, its range and its default."""

from clray.config.sections.clusters import ClustersConfig, KMeansConfig, ReclusterConfig
from clray.config.sections.data import PUBLISHED, AugmentationConfig, DataConfig, ViewSettings
from clray.config.sections.model import ENCODERS, OBJECTIVE_SOURCES, EncoderConfig, HeadConfig, ObjectiveConfig
from clray.config.sections.run import EvaluateConfig, TrackingConfig, TrainConfig
from clray.config.sections.sweep import SEARCHERS, SweepConfig
from clray.config.sections.values import NonNegativeFloat, NonNegativeInt, PositiveInt, Section

__all__ = [
    "ENCODERS",
    "OBJECTIVE_SOURCES",
    "PUBLISHED",
    "SEARCHERS",
    "AugmentationConfig",
    "ClustersConfig",
    "DataConfig",
    "EncoderConfig",
    "EvaluateConfig",
    "HeadConfig",
    "KMeansConfig",
    "NonNegativeFloat",
    "NonNegativeInt",
    "ObjectiveConfig",
    "PositiveInt",
    "ReclusterConfig",
    "Section",
    "SweepConfig",
    "TrackingConfig",
    "TrainConfig",
    "ViewSettings",
]

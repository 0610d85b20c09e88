"""What a trial stands for: a candidate for the answer, or a reference that the candidates are held against."""

from collections.abc import Mapping
from enum import StrEnum

TIE = 1e-9
"""Figures closer than this are equal: what lies between them is the rounding of sums."""
GIVEN_SOURCES = ("attributes", "column", "hierarchy")
"""Clusters that are read from the data and may be the labels themselves, under another name."""


class Role(StrEnum):
    """What a trial's clusters make of it."""

    CANDIDATE = "candidate"
    INFONCE = "InfoNCE"
    """Every image its own cluster: what the candidates have to beat. Needs no labels."""
    SUPCON = "SupCon"
    """The labels as clusters: what the candidates try to reach."""
    SUPERVISED = "supervised"
    """A classifier of the labels."""
    SYNTHETIC = "synthetic"
    """Made from the labels to lie at a wanted place of the information plane."""

    @property
    def is_reference(self) -> bool:
        return self is not Role.CANDIDATE

    @property
    def is_level(self) -> bool:
        """Whether its accuracy is a level that the others are held against, whatever their number of clusters."""
        return self in (Role.INFONCE, Role.SUPCON, Role.SUPERVISED)


def role_of(params: Mapping[str, str], metrics: Mapping[str, float]) -> Role:
    """The role of a trial.

    Args:
        params: its config by dotted key; keys that are missing have their defaults.
        metrics: with the information of its clusters. Given clusters that are the labels make a SupCon.
    """
    objective = params.get("objective.name", "cl-infonce")
    source = params.get("clusters.source", "kmeans")
    if objective == "infonce" or (source == "instance" and objective == "cl-infonce"):
        return Role.INFONCE
    is_classifier = objective in ("supervised", "cluster-prediction")
    if objective in ("supervised", "supcon") or source == "labels" or _are_labels(source, metrics):
        return Role.SUPERVISED if is_classifier else Role.SUPCON
    return Role.SYNTHETIC if source == "synthetic" else Role.CANDIDATE


def _are_labels(source: str, metrics: Mapping[str, float]) -> bool:
    besides = [metrics.get(f"clusters/{name}conditional_entropy_bits", 1.0) for name in ("", "label_")]
    return source in GIVEN_SOURCES and all(bits < TIE for bits in besides)

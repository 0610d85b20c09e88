"""The experiment as one pydantic tree of sections."""

from typing import Any

from pydantic import model_validator

from clray.config.rules import bad_combination, bad_schedule
from clray.config.sections import (
    OBJECTIVE_SOURCES,
    AugmentationConfig,
    ClustersConfig,
    DataConfig,
    EncoderConfig,
    EvaluateConfig,
    HeadConfig,
    KMeansConfig,
    NonNegativeInt,
    ObjectiveConfig,
    ReclusterConfig,
    Section,
    SweepConfig,
    TrackingConfig,
    TrainConfig,
)


class Config(Section):
    """One experiment. `search_space` maps dotted keys to Tune domains; a list of such maps is searched one by one."""

    seed: NonNegativeInt = 0
    output: str = "outputs"
    allow_user_modules: bool = False
    """Let `encoder.name: module:function` import code of the user's."""
    data: DataConfig = DataConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    clusters: ClustersConfig = ClustersConfig()
    recluster: ReclusterConfig = ReclusterConfig()
    kmeans: KMeansConfig = KMeansConfig()
    encoder: EncoderConfig = EncoderConfig()
    head: HeadConfig = HeadConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    tracking: TrackingConfig = TrackingConfig()
    sweep: SweepConfig = SweepConfig()
    search_space: tuple[dict[str, Any], ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _search_space_as_list(cls, tree: Any) -> Any:
        if isinstance(tree, dict) and isinstance(tree.get("search_space"), dict):
            return {**tree, "search_space": [tree["search_space"]]}
        if isinstance(tree, dict) and tree.get("search_space", ()) is None:
            return {**tree, "search_space": []}
        return tree

    @model_validator(mode="before")
    @classmethod
    def _objective_chooses_its_source(cls, tree: Any) -> Any:
        objective = tree.get("objective") if isinstance(tree, dict) else None
        source = OBJECTIVE_SOURCES.get(objective.get("name")) if isinstance(objective, dict) else None
        if source is None:
            return tree
        return {**tree, "clusters": {**(tree.get("clusters") or {}), "source": source, "granularities": None}}

    @model_validator(mode="after")
    def _objective_makes_sense(self) -> "Config":
        reason = bad_combination(self) or bad_schedule(self)
        if reason is not None:
            raise ValueError(reason)
        return self

    @model_validator(mode="after")
    def _batch_divides(self) -> "Config":
        if self.train.global_batch_size % self.train.num_workers:
            raise ValueError(
                f"train.global_batch_size must be a multiple of train.num_workers={self.train.num_workers}; "
                f"got {self.train.global_batch_size}"
            )
        return self

    @model_validator(mode="after")
    def _reclusters_in_time(self) -> "Config":
        if self.clusters.source == "kmeans" and self.recluster.warmup_epochs >= self.train.num_epochs:
            raise ValueError(
                f"recluster.warmup_epochs must be below train.num_epochs={self.train.num_epochs}, or k-means clusters "
                f"are never used; got {self.recluster.warmup_epochs}"
            )
        return self

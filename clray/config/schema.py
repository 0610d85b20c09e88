"""The experiment as one pydantic tree of sections."""

from typing import Any

from pydantic import model_validator

from clray.config.rules import broken_rule
from clray.config.sections import (
    OBJECTIVE_SOURCES,
    AugmentationConfig,
    ClustersConfig,
    DataConfig,
    EncoderConfig,
    EvaluateConfig,
    HeadConfig,
    KMeansConfig,
    ObjectiveConfig,
    ReclusterConfig,
    Section,
    SweepConfig,
    TrackingConfig,
    TrainConfig,
)
from clray.config.sections.values import Flag, Seed, Text


class Config(Section):
    """One experiment: a run, and with a `search_space` a sweep of runs."""

    seed: Seed = 0
    """Of weights, batches, views and k-means: the same seed gives the same run."""
    output: Text = "outputs"
    """Folder that holds the runs and, by default, the MLflow store."""
    allow_user_modules: Flag = False
    """Let `module:name` in `encoder.name`, `clusters.source`, `objective.name` and `sweep.searcher` import code of the
    user's."""
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
    """Maps dotted keys to domains, such as `clusters.num_clusters: {grid_search: [10, 100]}`; a value without a domain
    is taken by every trial. A list of such maps is searched one by one. Domains, with the meaning of Ray Tune:
    `grid_search: [a, b, ...]`, `choice: [a, b, ...]`, `uniform: [low, high]`, `loguniform: [low, high]`,
    `quniform: [low, high, step]`, `randint: [low, high]` and `lograndint: [low, high]`, without `high`."""

    @model_validator(mode="before")
    @classmethod
    def _empty_sections_are_defaults(cls, tree: Any) -> Any:
        """`kmeans:` with nothing below it."""
        if not isinstance(tree, dict):
            return tree
        return {key: value for key, value in tree.items() if value is not None or key not in SECTIONS}

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
        name = objective.get("name") if isinstance(objective, dict) else None
        source = OBJECTIVE_SOURCES.get(name) if isinstance(name, str) else None
        clusters = (tree.get("clusters") or {}) if source is not None else None
        if not isinstance(clusters, dict):
            return tree
        return {
            **tree,
            "clusters": {**clusters, "source": source, "granularities": None, "confidence": 1.0},
            "objective": {**tree["objective"], "cluster_weight": 1.0},
        }

    @model_validator(mode="before")
    @classmethod
    def _embeddings_choose_encoder_and_views(cls, tree: Any) -> Any:
        """Where neither is named."""
        data = tree.get("data") if isinstance(tree, dict) else None
        if not isinstance(data, dict) or data.get("name") != "embeddings":
            return tree
        for section, name in (("encoder", "mlp"), ("augmentation", "features")):
            given = tree.get(section) or {}
            tree = {**tree, section: {"name": name, **given}} if isinstance(given, dict) else tree
        return tree

    @model_validator(mode="after")
    def _breaks_no_rule(self) -> "Config":
        reason = broken_rule(self)
        if reason is not None:
            raise ValueError(reason)
        return self


SECTIONS = tuple(
    name
    for name, field in Config.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
)
"""Names of the sections."""

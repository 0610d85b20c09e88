"""What cannot go together in a config, and why."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clray.config.schema import Config


def bad_schedule(config: "Config") -> str | None:
    """Why the trials of a sweep cannot be stopped early in this way, or None."""
    sweep, every = config.sweep, config.evaluate.every_epochs
    if not sweep.stops_early:
        return None
    chosen = "sweep.stop_dominated=true" if sweep.scheduler == "fifo" else f"sweep.scheduler={sweep.scheduler}"
    if every is None:
        return f"{chosen} compares accuracies while trials run; set evaluate.every_epochs (it is not set)"
    if sweep.scheduler != "pbt":
        return None
    if config.train.num_workers > 1:
        return f"sweep.scheduler=pbt needs train.num_workers=1 (it is {config.train.num_workers})"
    if sweep.is_sequential:
        return (
            f"sweep.scheduler=pbt changes trials while they run, so that sweep.searcher={sweep.searcher} cannot learn "
            "from them; choose one of them"
        )
    if sweep.perturb_every_epochs % every:
        return (
            f"sweep.perturb_every_epochs must be a multiple of evaluate.every_epochs={every}; "
            f"got {sweep.perturb_every_epochs}"
        )
    if config.search_space and not any(key in space for space in config.search_space for key in sweep.mutated):
        return f"sweep.scheduler=pbt: none of sweep.mutated ({', '.join(sweep.mutated)}) is in the search space"
    return None


def bad_combination(config: "Config") -> str | None:
    """Why these settings cannot go together, or None."""
    objective, source = config.objective, config.clusters.source
    name = objective.name
    if name == "pcl" and source != "kmeans":
        return f"objective.name=pcl learns from k-means prototypes; set clusters.source=kmeans (it is {source})"
    if name == "cluster-prediction" and source == "instance":
        return "objective.name=cluster-prediction would have one class per image; choose another clusters.source"
    if name == "cluster-prediction" and source == "kmeans" and config.recluster.warmup_epochs > 0:
        return (
            "objective.name=cluster-prediction has nothing to predict before the first clustering; set "
            f"recluster.warmup_epochs=0 (it is {config.recluster.warmup_epochs})"
        )
    places = (
        ("encoder.name", config.encoder.name), ("clusters.source", source), ("sweep.searcher", config.sweep.searcher),
    )  # fmt: skip
    for key, place in places:
        if ":" in place and not config.allow_user_modules:
            module = place.partition(":")[0]
            return f"{key}={place} imports code, the module {module!r}; allow it with allow_user_modules=true"
    if config.train.sampler == "cluster" and source == "instance":
        return "train.sampler=cluster: instance clusters have no second member; use train.sampler=uniform"
    is_plain = name in ("cl-infonce", "infonce", "supcon")
    for key, value, is_set in (
        ("form", objective.form, objective.form != "multi-positive"),
        ("dual_head", objective.dual_head, objective.dual_head),
        ("negatives", objective.negatives, objective.negatives == "queue" and name != "pcl"),
    ):
        if is_set and not is_plain:
            return f"objective.{key}={value} belongs to cl-infonce; objective.name={name} has no such choice"
    chosen = [
        key
        for key, is_set in (
            ("objective.form=pair-sampled", objective.form == "pair-sampled"),
            ("objective.dual_head=true", objective.dual_head),
            ("objective.negatives=queue", objective.negatives == "queue" and name != "pcl"),
        )
        if is_set
    ]
    if len(chosen) > 1:
        return f"{' and '.join(chosen)} cannot be combined; choose one"
    if objective.form == "pair-sampled" and config.clusters.granularities is not None:
        return "objective.form=pair-sampled draws pairs of one granularity; leave out clusters.granularities"
    if objective.is_classification and config.clusters.granularities is not None:
        return f"objective.name={name} predicts the clusters of one granularity; leave out clusters.granularities"
    counts = config.clusters.counts
    if source == "kmeans" and name != "pcl" and list(counts) != sorted(counts, reverse=True):
        return f"clusters.granularities of kmeans are nested, so they must fall, as in [500, 50]; got {list(counts)}"
    return None

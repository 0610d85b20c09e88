"""What acts once in a whole sweep, and so cannot differ between its trials."""

from clray.errors import UserError

ONCE_PER_SWEEP = {
    "data": "the images are read once for all trials, and accuracies on other images do not compare; "
    "run one sweep for each data set",
    "output": "the sweep and its trials share one folder",
    "allow_user_modules": "whoever starts the sweep allows it for all of it",
    "tracking": "one store records the sweep and its trials",
    "sweep": "it says how the trials themselves are run",
    "search_space": "a search space cannot hold another; give a list of them",
    "train.storage_path": "the sweep and its trials are kept in one place",
    "kmeans.num_shards": "the shards serve all trials of a sweep",
    "kmeans.cpus_per_shard": "the shards serve all trials of a sweep",
    "kmeans.gpus_per_shard": "the shards serve all trials of a sweep",
    "kmeans.backend": "the shards serve all trials of a sweep",
    "kmeans.node_labels": "the shards serve all trials of a sweep",
    "evaluate.targets": "what the first tells stands in the place of labels, and other attributes do not compare",
    "evaluate.probe_epochs": "it is ignored, and all trials would be the same",
    "evaluate.probe_learning_rate": "it is ignored, and all trials would be the same",
    "evaluate.probe_batch_size": "it is ignored, and all trials would be the same",
}
"""Why, by key or section."""


def shared_because(key: str) -> str | None:
    """Why all trials of a sweep share a key; None where they may differ in it."""
    return next(
        (reason for shared, reason in ONCE_PER_SWEEP.items() if key == shared or key.startswith(f"{shared}.")), None
    )


def require_per_trial(key: str) -> None:
    """Raise UserError, with the reason, for a key that all trials of a sweep share."""
    reason = shared_because(key)
    if reason is not None:
        raise UserError(f"search_space.{key}: {reason}. Set it outside the search space")

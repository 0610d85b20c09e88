"""Signs in an epoch's metrics that training has gone wrong without failing."""

import logging

LEAST_SPREAD = 1e-3
MOST_IN_ONE_CLUSTER = 0.95
log = logging.getLogger(__name__)


def warn_of_collapse(metrics: dict[str, float], run: str) -> None:
    """Log a warning, with the figures, where all embeddings are nearly equal or one cluster holds nearly all images."""
    epoch, spread = int(metrics.get("epoch", 0)), metrics.get("train/embedding_spread")
    if spread is not None and spread < LEAST_SPREAD:
        log.warning(
            "%s, epoch %d: the embeddings have collapsed: their spread 1 - |mean z|^2 is %.1e (1 is spread out); "
            "lower train.learning_rate or raise objective.temperature",
            run,
            epoch,
            spread,
        )
    largest = metrics.get("clusters/largest_fraction", 0.0)
    if largest > MOST_IN_ONE_CLUSTER and metrics.get("clusters/num_clusters", 0) > 1:
        log.warning(
            "%s, epoch %d: one cluster holds %.1f %% of the images; train longer before the first clustering "
            "(recluster.warmup_epochs)",
            run,
            epoch,
            100 * largest,
        )

"""clray: contrastive representation learning with clusters on Ray.

The data takes one way through the package:

    config -> data -> clusters -> objective -> training -> evaluate -> track -> report -> sweeps

`errors`, `seeding` and `config` lie at the bottom; `kmeans`, `model`, `objective` and `evaluate` are the maths;
`training` turns them into a run; `track` (MLflow), `sweeps` (Ray Tune) and `ray_runtime` are the edges; `runs` opens,
runs and closes a run or sweep; `cli` parses, calls and prints.
"""

import importlib
from typing import TYPE_CHECKING, Any

from clray.config import Config, load_config
from clray.errors import TrainingError, UserError

if TYPE_CHECKING:
    from clray.forecasts import advise
    from clray.kmeans.assign import Assigned, assign
    from clray.kmeans.duplicates import Duplicates, duplicates
    from clray.kmeans.engine import ClusterResult, cluster
    from clray.kmeans.estimator import KMeans
    from clray.kmeans.lloyd import Clustering
    from clray.progress import Observer
    from clray.report.look.looking import look
    from clray.report.look.neighbours import Neighbour, neighbours
    from clray.runs import Run, SweepResult, sweep, train
    from clray.training.objectives.port import EmbeddedBatch, Objective
    from clray.training.trained import Embeddings, TrainedEncoder, embed, load_encoder

__all__ = [
    "Assigned",
    "ClusterResult",
    "Clustering",
    "Config",
    "Duplicates",
    "EmbeddedBatch",
    "Embeddings",
    "KMeans",
    "Neighbour",
    "Objective",
    "Observer",
    "Run",
    "SweepResult",
    "TrainedEncoder",
    "TrainingError",
    "UserError",
    "advise",
    "assign",
    "cluster",
    "duplicates",
    "embed",
    "load_config",
    "load_encoder",
    "look",
    "neighbours",
    "sweep",
    "train",
]

_LATE = {
    "Assigned": "clray.kmeans.assign",
    "KMeans": "clray.kmeans.estimator",
    "advise": "clray.forecasts",
    "assign": "clray.kmeans.assign",
    "ClusterResult": "clray.kmeans.engine",
    "Clustering": "clray.kmeans.lloyd",
    "Neighbour": "clray.report.look.neighbours",
    "EmbeddedBatch": "clray.training.objectives.port",
    "Objective": "clray.training.objectives.port",
    "Observer": "clray.progress",
    "Run": "clray.runs",
    "SweepResult": "clray.runs",
    "Duplicates": "clray.kmeans.duplicates",
    "Embeddings": "clray.training.trained",
    "TrainedEncoder": "clray.training.trained",
    "cluster": "clray.kmeans.engine",
    "duplicates": "clray.kmeans.duplicates",
    "embed": "clray.training.trained",
    "load_encoder": "clray.training.trained",
    "look": "clray.report.look.looking",
    "neighbours": "clray.report.look.neighbours",
    "sweep": "clray.runs",
    "train": "clray.runs",
}
"""Imported on first use: torch, FAISS and Ray take seconds."""


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATE[name]), name)

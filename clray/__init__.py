"""clray: contrastive representation learning with clusters on Ray.

The data takes one way through the package:

    config -> data -> clusters -> objective -> train -> evaluate -> track -> sweep

`config` and `seeding` lie at the bottom; `kmeans`, `model`, `objective` and `evaluate` are the maths; `train` turns
them into a run; `track` (MLflow) and `sweep` (Ray Tune) are the edges; `cli` parses and prints.
"""

from typing import TYPE_CHECKING, Any

from clray.config import Config, load_config
from clray.errors import UserError

if TYPE_CHECKING:
    from clray.kmeans.engine import ClusterResult, cluster
    from clray.kmeans.lloyd import Clustering

__all__ = ["ClusterResult", "Clustering", "Config", "UserError", "cluster", "load_config"]


def __getattr__(name: str) -> Any:
    """The k-means engine on first use, because FAISS takes a second to import."""
    if name in ("ClusterResult", "cluster"):
        from clray.kmeans import engine

        return getattr(engine, name)
    if name == "Clustering":
        from clray.kmeans.lloyd import Clustering

        return Clustering
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

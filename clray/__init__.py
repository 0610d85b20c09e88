"""clray: contrastive representation learning with clusters on Ray.

The data takes one way through the package:

    config -> data -> clusters -> objective -> train -> evaluate -> track -> sweep

`config` and `seeding` lie at the bottom; `kmeans`, `model`, `objective` and `evaluate` are the maths; `train` turns
them into a run; `track` (MLflow) and `sweep` (Ray Tune) are the edges; `cli` parses and prints.
"""

from clray.config import Config, UserError, load_config

__all__ = ["Config", "UserError", "load_config"]

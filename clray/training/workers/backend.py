"""The process group of a worker group, whose start is repeated where a worker is lost under it.

Ray Train (2.60) starts a group anew where it hears of the lost worker. Where another worker, whose connection to the
lost one is cut, is heard first, it takes that for a fault of its own and ends the run.
"""

from dataclasses import dataclass
from typing import Any

from ray.exceptions import RayTaskError
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError


class RepeatedStart(_TorchBackend):
    """Joins the workers, and calls what a worker says of another a failed start, which Ray Train repeats."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        try:
            super().on_start(worker_group, backend_config)
        except RayTaskError as error:
            last = str(error).strip().splitlines()[-1]
            # Then nobody is lost, and each further start would take as long.
            if any(word in last.lower() for word in ("timed out", "timeout")):
                raise
            raise WorkerGroupStartupFailedError(f"the workers could not be joined: {last}") from error


@dataclass
class ProcessGroupConfig(TorchConfig):
    """As Ray Train's own, with such a start."""

    @property
    def backend_cls(self) -> type[RepeatedStart]:
        return RepeatedStart

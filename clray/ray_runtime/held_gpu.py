"""A GPU of this node for work in this process, counted by Ray like those of its actors."""

import os
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from clray.errors import UserError

WAIT_SECONDS = 30.0


@ray.remote(num_cpus=0)
class _Holder:
    """Keeps a GPU from others as long as it lives; uses none itself."""

    def gpu(self) -> str:
        return str(ray.get_gpu_ids()[0])


class HeldGpu:
    """Attributes: `index`, by which this process knows the GPU; it is free again once this object is gone."""

    def __init__(self, index: int, holder: Any | None) -> None:
        self.index, self._holder = index, holder


def hold_gpu(num_gpus: float, *, wait_seconds: float = WAIT_SECONDS) -> HeldGpu:
    """Have Ray assign a GPU of this process's node.

    A job of `ray job submit --entrypoint-num-gpus` has one already, the only one that it sees.

    Args:
        num_gpus: one, or the share of one that is used.

    Raises:
        UserError: none is free.
    """
    visible = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = _Holder  # an actor's class, by its decorator
    holder = actor.options(num_gpus=num_gpus, scheduling_strategy=here).remote()
    try:
        gpu = ray.get(holder.gpu.remote(), timeout=wait_seconds)
    except GetTimeoutError:
        ray.kill(holder)
        if visible:
            return HeldGpu(0, None)
        raise UserError(
            f"train.gpus_per_worker={num_gpus:g}: no GPU of this node is free for it; others on the Ray cluster hold "
            "them. Wait for these, or set train.gpus_per_worker=0"
        ) from None
    if visible and gpu not in visible:
        ray.kill(holder)
        return HeldGpu(0, None)
    return HeldGpu(visible.index(gpu) if visible else int(gpu), holder)

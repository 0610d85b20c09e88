"""Placement groups whose actor was killed: Ray keeps their resources until the whole job ends.

Ray Train has them removed, but only once all workers of a group have started. A trial that is killed while its group
starts would hold their CPUs and GPUs for the rest of the sweep, until none are left.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray._private import state
from ray.core.generated.gcs_pb2 import PlacementGroupTableData  # type: ignore[attr-defined]  # made by protobuf
from ray.util.placement_group import PlacementGroup, remove_placement_group

from clray.ray_runtime.following import looked_at

CHECK_SECONDS = 15.0


@contextmanager
def orphans_removed() -> Iterator[None]:
    """Remove, from another thread, placement groups of this job whose actor has died while the block runs."""
    with looked_at(_remove, CHECK_SECONDS):
        yield


def _remove() -> None:
    for each in orphans():
        remove_placement_group(each)


def orphans() -> list[PlacementGroup]:
    """The placement groups of this job whose actor has died; not those of its driver, nor detached ones."""
    job = ray.get_runtime_context().get_job_id()
    table = state.state._connect_and_get_accessor().get_placement_group_table()
    groups = [PlacementGroupTableData.FromString(each) for each in table]
    return [
        PlacementGroup(ray.PlacementGroupID(each.placement_group_id))
        for each in groups
        if each.creator_job_id.hex() == job
        and each.state != PlacementGroupTableData.REMOVED
        and not each.is_detached
        and _has_died(each.creator_actor_id)
    ]


def _has_died(actor_id: bytes) -> bool:
    """False where the driver has made the group: it has no actor's id."""
    return bool(state.actors(actor_id.hex()).get("State") == "DEAD")

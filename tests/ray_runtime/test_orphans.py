"""Placement groups are removed once the actor that made them has died, and no others."""

import time
from collections.abc import Callable, Iterator

import pytest
import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table

from clray.ray_runtime import orphans
from clray.ray_runtime.cluster import start_ray

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def ray_cluster() -> Iterator[None]:
    start_ray()
    yield
    ray.shutdown()


@ray.remote(num_cpus=0)
class Maker:
    def make(self, lifetime: str | None = None) -> PlacementGroup:
        group = placement_group([{"CPU": 0.1}], lifetime=lifetime)
        ray.get(group.ready())
        return group


def test_groups_of_killed_actors_are_removed_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "CHECK_SECONDS", 0.2)
    lives, dies = (Maker.remote() for _ in range(2))
    stay = [placement_group([{"CPU": 0.1}]), *ray.get([lives.make.remote(), dies.make.remote("detached")])]
    orphan = ray.get(dies.make.remote())
    assert not orphans.orphans()
    ray.kill(dies)
    _wait(lambda: [each.id for each in orphans.orphans()] == [orphan.id])
    assert _state(orphan) == "CREATED", "Ray does not remove it"
    with orphans.orphans_removed():
        _wait(lambda: _state(orphan) == "REMOVED")
    assert {_state(each) for each in stay} == {"CREATED"}


def _state(group: PlacementGroup) -> str:
    return placement_group_table(group)["state"]


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)

"""Tasks of Ray over vectors that all of them read: as many at a time as there are cores, in no order."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ray

from clray.kmeans.shards.reaching import fetch
from clray.ray_runtime.cluster import start_ray


def run_tasks(
    function: Callable[..., Any], shared: Any, arguments: Iterable[tuple[Any, ...]], *, verbose: bool
) -> Iterator[tuple[int, Any]]:
    """Call a function with what is shared and each tuple of arguments; a task whose worker dies runs again.

    Yields:
        The number of a tuple, and what the function returned for it, once it is done.

    Raises:
        UserError: raised by the function.
    """
    start_ray(needed_cpus=1, verbose=verbose)
    reference, task = ray.put(shared), ray.remote(num_cpus=1)(function)
    most = max(2, int(ray.cluster_resources().get("CPU", 1)))
    waiting: dict[Any, int] = {}
    try:
        for number, each in enumerate(arguments):
            while len(waiting) >= most:
                yield _first_done(waiting)
            waiting[task.remote(reference, *each)] = number
        while waiting:
            yield _first_done(waiting)
    finally:
        for left in waiting:
            ray.cancel(left, force=True)


def _first_done(waiting: dict[Any, int]) -> tuple[int, Any]:
    (done,), _ = ray.wait(list(waiting), num_returns=1)
    return waiting.pop(done), fetch(done)

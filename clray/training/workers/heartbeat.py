"""Which worker of a group no longer answers: each leaves its step in the group's store, and on a board outside it."""

import threading
from collections.abc import Callable

import torch.distributed as dist

STORE_TIMEOUT_SECONDS = 5.0
BEAT_SECONDS = 1.0


class Heartbeat:
    """The steps of all workers, in the key-value store that `torch.distributed` keeps on worker 0.

    NCCL ends the processes that wait for one which hangs, and the store ends with them. So a thread also leaves each
    worker's step where it outlives the group.
    """

    def __init__(self, rank: int, world_size: int, leave: Callable[[str], None] | None = None) -> None:
        """Args: `leave` puts the step, as text, outside the group."""
        self.rank, self.world_size, self.step = rank, world_size, 0
        self._ends = threading.Event()
        if leave is not None:
            threading.Thread(target=self._repeat, args=(leave,), daemon=True).start()
        self.store = dist.distributed_c10d._get_default_store()

    def beat(self, step: int) -> None:
        """Leave word that this worker is about to take a step."""
        self.step = step
        self.store.set(f"clray/{self.rank}", str(step))

    def close(self) -> None:
        """End the thread."""
        self._ends.set()

    def _repeat(self, leave: Callable[[str], None]) -> None:
        """Also while the worker itself hangs: its step then stays, and the others are seen to be ahead."""
        left = None
        while not self._ends.wait(BEAT_SECONDS):
            if self.step != left:
                left = self.step
                leave(str(left))

    def describe(self, timeout_seconds: float) -> str:
        """Name the workers that are behind this one, after a collective operation timed out."""
        steps = self._steps()
        if steps is None:
            behind = "worker 0, which keeps the group's store,"
        else:
            late = [rank for rank, step in enumerate(steps) if step < self.step]
            stuck = late or [rank for rank in range(self.world_size) if rank != self.rank]
            behind = " and ".join(f"worker {rank} (in step {steps[rank]} of the run)" for rank in stuck)
        return (
            f"{behind} did not answer worker {self.rank} (in step {self.step}) for {timeout_seconds:g} s "
            "(train.timeout_seconds); is its machine overloaded or cut off?"
        )

    def _steps(self) -> list[int] | None:
        """The last step of each worker; None where the store does not answer."""
        steps: list[int] = []

        def read() -> None:
            steps.extend(int(self.store.get(f"clray/{rank}")) for rank in range(self.world_size))

        # A store whose process is stopped answers no request, whatever its own timeout.
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        reader.join(STORE_TIMEOUT_SECONDS)
        return steps if len(steps) == self.world_size else None


def is_timeout(error: RuntimeError) -> bool:
    """Whether a collective operation gave up waiting, by the words of gloo, NCCL and the store."""
    text = str(error).lower()
    return "timed out" in text or "timeout" in text or "connection closed by peer" in text


def name_hung(steps: list[int | None], timeout_seconds: float) -> str | None:
    """The workers of an ended group that had not come as far as the others; None where the steps do not tell.

    Args:
        steps: the last step of each worker, by rank, as far as it was heard.
    """
    known = {rank: step for rank, step in enumerate(steps) if step is not None}
    farthest = max(known.values(), default=0)
    late = [f"worker {rank} (in step {step} of the run)" for rank, step in known.items() if step < farthest]
    if not late:
        return None
    return (
        f"{' and '.join(late)} did not come to step {farthest}, where others waited up to {timeout_seconds:g} s "
        "(train.timeout_seconds); is its machine overloaded or cut off?"
    )

"""The head of a Ray cluster that was joined: told when it cannot be reached, and the work ended where it is lost."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # of Cython, without stubs

from clray.ray_runtime.cluster import connect

HEAD_TIMEOUT_SECONDS = float(os.environ.get("RAY_gcs_rpc_server_reconnect_timeout_s", "60")) - 10  # noqa: SIM112
"""How long the head of a joined cluster may be away; Ray ends the process ten seconds later."""
HEAD_CHECK_SECONDS = 2.0


@contextmanager
def head_watched(say: Callable[[str], None], leave: Callable[[str], None]) -> Iterator[None]:
    """Follow the head of the cluster that this process joined, while the block runs.

    A restarted head continues the work where its state persists (RAY_gcs_storage=rocksdb). Where it cannot be
    reached, Ray would end the process; where it has lost its state, Ray would wait, or fail with a message of its own.

    Args:
        say: is told when the head cannot be reached and when it can again, also from another thread.
        leave: is told that the head is lost, also from another thread; it ends the process.
    """
    if not os.environ.get("RAY_ADDRESS") or not ray.is_initialized():
        yield
        return
    head, over = _Head(say, leave), threading.Event()

    def follow() -> None:
        while not over.wait(HEAD_CHECK_SECONDS):
            head.check()

    threading.Thread(target=follow, daemon=True).start()
    try:
        yield
    except Exception:
        # Whether it failed because the head is lost is known once the head is back, or has been away for long enough.
        while not head.check():
            time.sleep(HEAD_CHECK_SECONDS)
        raise
    finally:
        over.set()


class _Head:
    """The head of the joined cluster, and since when it cannot be reached."""

    def __init__(self, say: Callable[[str], None], leave: Callable[[str], None]) -> None:
        self.say, self.leave = say, leave
        self.address = ray.get_runtime_context().gcs_address
        self.cluster = self._ask()
        self.away_since: float | None = None
        self.lock = threading.Lock()

    def _ask(self) -> str:
        """The id of the cluster that answers; raises OSError or RpcError where none does."""
        connect(self.address)
        return str(GcsClient(address=self.address).cluster_id.hex())

    def check(self) -> bool:
        """Whether the head answers."""
        with self.lock:
            try:
                cluster = self._ask()
            except (OSError, ray.exceptions.RpcError):
                self._note_absence()
                return False
            if cluster != self.cluster:
                self.leave(
                    f"the head of the Ray cluster, {self.address}, was restarted and has lost this work; "
                    "with RAY_gcs_storage=rocksdb and RAY_gcs_storage_path it would have continued"
                )
            if self.away_since is not None:
                self.away_since = None
                self.say("the head of the Ray cluster answers again")
            return True

    def _note_absence(self) -> None:
        if self.away_since is None:
            self.away_since = time.monotonic()
            self.say(f"the head of the Ray cluster, {self.address}, does not answer; waiting for it")
        elif time.monotonic() - self.away_since > HEAD_TIMEOUT_SECONDS:
            self.leave(
                f"the head of the Ray cluster, {self.address}, has not answered for {HEAD_TIMEOUT_SECONDS:.0f} s"
            )

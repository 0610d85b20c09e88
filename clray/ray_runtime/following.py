"""Looking at the state of a Ray cluster again and again, beside the work."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ray.exceptions import RayError


@contextmanager
def looked_at(look: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call `look` every so many seconds, from another thread, while the block runs.

    A look that fails, as the head does not answer or Ray has ended, is left out; another thread tells of a lost head.
    """
    over = threading.Event()

    def follow() -> None:
        while not over.wait(seconds):
            with suppress(RuntimeError, RayError):
                look()

    threading.Thread(target=follow, daemon=True).start()
    try:
        yield
    finally:
        over.set()

"""Stopping this process as Ctrl-C does, and short work on the way out that a second Ctrl-C does not cut."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MOST_PUT_OFF = 2
"""Signals that wait; one more breaks through, so that nobody is locked in."""


def interrupt() -> None:
    """Do what Ctrl-C does; where SIGINT is ignored, as in a script's background job, raise KeyboardInterrupt."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off SIGINT, SIGTERM and SIGHUP while the block runs; what came meanwhile takes effect after it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []

    def put_off(number: int, _: FrameType | None) -> None:
        waiting.append(number)
        if len(waiting) > MOST_PUT_OFF:
            raise KeyboardInterrupt

    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    handled = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in handled:
        signal.signal(number, put_off)
    try:
        yield
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)
        if waiting and len(waiting) <= MOST_PUT_OFF:
            signal.raise_signal(waiting[0])

"""How a command is stopped: SIGTERM, SIGHUP and a closed output take the way out that Ctrl-C takes.

The exit code says which it was, as a shell counts: 128 and the signal's number.
"""

import os
import select
import signal
import sys
from types import FrameType

from clray.interrupts import interrupt

_received: list[int] = []


def listen() -> None:
    """Let SIGTERM and SIGHUP do what Ctrl-C does; a SIGHUP that `nohup` has switched off stays off."""
    _received.clear()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)


def exit_code(otherwise: int = 128 + signal.SIGINT) -> int:
    """The exit code of a command that was stopped; `otherwise` where no signal but SIGINT came."""
    return 128 + _received[0] if _received else otherwise


def output_closed() -> None:
    """Stop as by Ctrl-C, as nobody reads stdout any more; what is still printed there goes nowhere."""
    _to_nowhere(1)
    if signal.SIGPIPE not in _received:
        _stop(signal.SIGPIPE, None)


def finish_output() -> bool:
    """Write out what waits for stdout; False where nobody reads it."""
    try:
        sys.stdout.flush()
    except OSError:
        _to_nowhere(1)
        return False
    return True


def is_output_closed() -> bool:
    """Whether stdout is a pipe that nobody reads."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _, event in poll.poll(0))


def _stop(number: int, _: FrameType | None) -> None:
    _received.append(number)
    if number == signal.SIGHUP:
        for stream in (1, 2):
            if _has_hung_up(stream):
                _to_nowhere(stream)
    interrupt()


def _has_hung_up(stream: int) -> bool:
    """Whether the terminal behind a stream is gone: each write to it would fail."""
    try:
        os.ttyname(stream)
    except OSError as error:
        return error.errno not in (25, 19)  # not a terminal: a file or a pipe, which may well be read
    return False


def _to_nowhere(stream: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream)
    os.close(nowhere)

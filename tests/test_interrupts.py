"""Stopping as Ctrl-C does, and the way out that a second Ctrl-C does not cut; in this process."""

import signal
from collections.abc import Iterator

import pytest

from clray.cli import stops
from clray.interrupts import interrupt, uninterrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Handlers as a shell gives them to a command in the foreground; those of before are put back."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("in_background", [False, True])
def test_sigterm_stops_a_command_also_where_a_script_put_it_into_the_background(in_background: bool) -> None:
    if in_background:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell without job control does
    stops.listen()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert stops.exit_code() == 143
    with pytest.raises(KeyboardInterrupt):
        interrupt()


def test_a_second_signal_waits_for_the_way_out_and_a_third_does_not() -> None:
    done: list[int] = []

    def work(num_signals: int) -> None:
        with uninterrupted():
            for number in range(num_signals):
                signal.raise_signal(signal.SIGINT)
                done.append(number)

    with pytest.raises(KeyboardInterrupt):
        work(1)
    assert done == [0]
    with pytest.raises(KeyboardInterrupt):
        work(4)
    assert done == [0, 0, 1]


def test_the_exit_code_is_that_of_the_first_signal() -> None:
    stops.listen()
    assert stops.exit_code() == 130
    for number in (signal.SIGHUP, signal.SIGTERM):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert stops.exit_code() == 129

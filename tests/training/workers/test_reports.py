"""Each epoch of a group arrives in order and at once, and nothing else is taken for one."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import pytest

from clray.training.workers.reports import Address, reports_heard


def send(address: Address, num_epochs: int) -> None:
    for epoch in range(1, num_epochs + 1):
        address.send({"epoch": epoch, "train/loss": 0.5})


def test_the_epochs_of_another_process_arrive_in_order_before_the_block_is_left() -> None:
    heard: list[float] = []
    with reports_heard(lambda metrics: heard.append(metrics["epoch"])) as address:
        process = get_context("spawn").Process(target=send, args=(address, 200))
        process.start()
        process.join(60)
    assert heard == list(range(1, 201))


def test_an_epoch_is_heard_while_the_group_goes_on() -> None:
    heard: list[float] = []
    with reports_heard(lambda metrics: heard.append(metrics["epoch"])) as address:
        send(address, 1)
        deadline = time.monotonic() + 60
        while not heard and time.monotonic() < deadline:
            time.sleep(0.001)
        assert heard == [1]


def test_what_is_not_signed_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clray.training.workers.reports.TIMEOUT_SECONDS", 1.0)
    heard: list[float] = []
    with reports_heard(lambda metrics: heard.append(metrics["epoch"])) as address:
        silent = socket.create_connection(("127.0.0.1", address.port))
        for content in (b"", b"end", b'{"epoch": 9}', bytes(32) + b"end", bytes(1000)):
            with socket.create_connection(("127.0.0.1", address.port)) as stranger:
                stranger.sendall(content)
        Address(address.port, b"x" * 32).send({"epoch": 8})
        send(address, 2)
    silent.close()
    assert heard == [1, 2]


def test_what_hearing_raised_is_raised_at_the_end() -> None:
    def fail(metrics: dict[str, float]) -> None:
        raise OSError(f"full at {metrics['epoch']}")

    def work() -> None:
        with reports_heard(fail) as address:
            send(address, 3)

    with pytest.raises(OSError, match="full at 1"):
        work()


def test_nobody_to_hear_costs_the_group_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with ThreadPoolExecutor() as pool, socket.create_server(("127.0.0.1", 0)) as closed:
        address = Address(closed.getsockname()[1], b"k")
        closed.close()
        pool.submit(address.send, {"epoch": 1}).result()
    assert "did not reach the process" in caplog.text

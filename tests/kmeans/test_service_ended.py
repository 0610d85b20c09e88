"""The k-means service ends with what it was started for."""

import threading
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest

import clray
from clray import runs
from clray.config import Config
from clray.kmeans import service
from clray.kmeans.service import service_ended
from clray.training.workers import opening
from clray.training.workers.opening import Opened


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Services that were ended."""
    found: list[object] = []
    monkeypatch.setattr(service.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(service.ray, "kill", found.append)
    return found


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_a_service_ends_with_its_block_whatever_ends_that(
    error: type[BaseException] | None, ended: list[object]
) -> None:
    with nullcontext() if error is None else pytest.raises(error), service_ended("service") as each:
        assert (each, ended) == ("service", [])
        if error is not None:
            raise error
    assert ended == ["service"]


def test_nothing_is_ended_where_there_is_no_service(ended: list[object]) -> None:
    with service_ended(None) as each:
        assert each is None
    assert ended == []


def test_a_lost_head_is_not_waited_for(ended: list[object], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    is_over, answers = threading.Event(), list[bool]()
    monkeypatch.setattr(service.ray, "kill", lambda _: answers.append(is_over.wait(60)))
    monkeypatch.setattr(service, "END_SECONDS", 0.01)
    with pytest.raises(KeyboardInterrupt), service_ended("service"):
        raise KeyboardInterrupt
    assert answers == []
    is_over.set()


def test_a_head_that_cannot_be_asked_hides_no_error(ended: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does the thread that asks print a traceback of its own."""
    printed: list[object] = []

    def refuse(_: object) -> None:
        ended.append("asked")
        raise RuntimeError("the head does not answer")

    monkeypatch.setattr(service.ray, "kill", refuse)
    monkeypatch.setattr(threading, "excepthook", printed.append)
    with pytest.raises(ValueError, match="of the block"), service_ended("service"):
        raise ValueError("of the block")
    assert (ended, printed) == (["asked"], [])


def test_ctrl_c_ends_the_service_of_a_run(
    tiny_config: Callable[..., Config], ended: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def stopped(*_: object, **__: object):
        raise KeyboardInterrupt
        yield

    actor = SimpleNamespace(_actor_id=b"service")
    monkeypatch.setattr(opening, "start_for_run", lambda config, *_, **__: Opened(config, actor, None))
    monkeypatch.setattr(runs, "recorded", stopped)
    with pytest.raises(KeyboardInterrupt):
        clray.train(tiny_config())
    assert ended == [actor]

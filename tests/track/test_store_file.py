"""A local store is made whole or not at all, whatever stops its maker; one that cannot be used is named."""

import multiprocessing
import os
import resource
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clray.config.sections import TrackingConfig
from clray.errors import UserError
from clray.track import store_file
from clray.track.mlflow import check_server, existing_store_uri, open_store
from clray.track.store_file import check_store_file, is_finished, make_store_file, sqlite_path, sqlite_uri

pytestmark = pytest.mark.slow
Processes = multiprocessing.context.ForkServerContext


@pytest.fixture(scope="module")
def processes() -> Processes:
    """Processes that have imported MLflow already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow", "mlflow.store.tracking.sqlalchemy_store", "alembic.command"])
    return context


def die_at_statement(number: int) -> None:
    """Kill this process by SIGKILL as it sends its statement of this number to a database."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    sent = [0]

    def count(*_: object) -> None:
        sent[0] += 1
        if sent[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", count)


def make_and_die(path: Path, statement: int) -> None:
    die_at_statement(statement)
    make_store_file(path)


def let_mlflow_make_and_die(path: Path, statement: int) -> None:
    die_at_statement(statement)
    store_file._create(path)


def write_and_die(path: Path) -> None:
    """Killed in a transaction of which a part is in the file already, and what was there before in the journal."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO experiments (name) VALUES (?)", ((str(i) * 1000,) for i in range(100)))
    os.kill(os.getpid(), signal.SIGKILL)


def make_on_a_full_disk(path: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    with pytest.raises(UserError, match=r"the MLflow store cannot be made .*; make room there"):
        make_store_file(path)


def open_at_once(folder: Path, barrier: Callable) -> None:
    barrier.wait()
    open_store(TrackingConfig(), folder)


def run(processes: Processes, target: Callable, *arguments: object) -> int | None:
    process = processes.Process(target=target, args=arguments)
    process.start()
    process.join(120)
    return process.exitcode


@pytest.mark.fault
def test_a_kill_at_any_point_of_the_creation_costs_nothing(processes: Processes, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    for statement in (3, 300, 1000):
        assert run(processes, make_and_die, path, statement) == -signal.SIGKILL
        assert not path.exists()
    assert run(processes, make_store_file, path) == 0
    assert [each.name for each in tmp_path.iterdir()] == ["mlflow.db"]
    assert open_store(TrackingConfig(), tmp_path).experiment_id != "0"


@pytest.mark.fault
@pytest.mark.usefixtures("store_template")
def test_a_store_that_mlflow_itself_left_half_made_is_finished(processes: Processes, tmp_path: Path) -> None:
    for statement in (3, 100, 1300):
        path = tmp_path / str(statement) / "mlflow.db"
        path.parent.mkdir()
        assert run(processes, let_mlflow_make_and_die, path, statement) == -signal.SIGKILL
        assert path.exists()
        with pytest.raises(UserError, match="no such MLflow store"):
            existing_store_uri(None, path.parent)
        assert open_store(TrackingConfig(), path.parent).experiment_id != "0"


@pytest.mark.fault
def test_a_full_disk_leaves_no_part_of_a_store(processes: Processes, tmp_path: Path) -> None:
    assert run(processes, make_on_a_full_disk, tmp_path / "mlflow.db") == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault
def test_two_commands_at_once_make_one_store(processes: Processes, tmp_path: Path) -> None:
    barrier = processes.Barrier(2)
    both = [processes.Process(target=open_at_once, args=(tmp_path, barrier)) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join(120)
    assert [each.exitcode for each in both] == [0, 0]
    assert is_finished(tmp_path / "mlflow.db")


def test_a_half_migrated_file_is_replaced_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        connection.execute("INSERT INTO alembic_version VALUES ('451aebb31d03')")
        connection.execute("CREATE TABLE experiments (experiment_id INTEGER)")
    (tmp_path / "mlflow.db-journal").write_bytes(b"of the unfinished file")
    open_store(TrackingConfig(), tmp_path)
    assert is_finished(path)
    assert (tmp_path / "mlflow.db.unfinished").exists()


def test_a_store_with_content_is_never_replaced(tmp_path: Path) -> None:
    """Also not where it cannot be used: of another version of MLflow, say, or cut off in its own migration."""
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        connection.execute("INSERT INTO alembic_version VALUES ('ffffffffffff')")
        connection.execute("CREATE TABLE _alembic_tmp_runs (run_uuid TEXT)")
        connection.execute("INSERT INTO _alembic_tmp_runs VALUES ('x')")
    with pytest.raises(UserError, match=r"cannot be used: .* keep a copy and run `mlflow db upgrade"):
        open_store(TrackingConfig(), tmp_path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM _alembic_tmp_runs").fetchone() == (1,)


def test_a_locked_store_is_named(tmp_path: Path, store_template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(shutil.copy(store_template, tmp_path))
    monkeypatch.setattr(store_file, "BUSY_TIMEOUT_SECONDS", 0.1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(UserError, match=r"mlflow.db: the MLflow store cannot be used: another process has kept it loc"):
        open_store(TrackingConfig(), tmp_path)
    other.close()
    open_store(TrackingConfig(), tmp_path)


def test_a_store_that_cannot_be_written_is_named(store_template: Path) -> None:
    folder = Path(tempfile.mkdtemp())
    path = Path(shutil.copy(store_template, folder))
    folder.chmod(0o755)
    path.chmod(0o444)
    own = os.geteuid()
    try:
        if own == 0:
            os.seteuid(65534)
        with pytest.raises(UserError, match="it cannot be written; correct its permissions"):
            check_store_file(path)
        check_store_file(path, for_writing=False)
        with pytest.raises(UserError, match=r"the MLflow store cannot be made .*; make room there, or choose another"):
            make_store_file(folder / "other.db")
    finally:
        os.seteuid(own)
        shutil.rmtree(folder)


def test_two_hundred_damaged_stores_are_named_or_used(tmp_path: Path, store_template: Path) -> None:
    whole = np.frombuffer(store_template.read_bytes(), np.uint8)
    generator = np.random.default_rng(0)
    path, messages = tmp_path / "mlflow.db", list[str]()
    for _ in range(200):
        damaged = whole.copy()
        kind = generator.integers(4)
        if kind == 0:
            damaged = damaged[: generator.integers(1, len(whole))]
        elif kind == 1:
            page = generator.integers(len(whole) // 4096) * 4096
            damaged[page : page + 4096] = generator.integers(0, 256, 4096)
        elif kind == 2:
            damaged[generator.integers(0, 100, 3)] = generator.integers(0, 256, 3)
        else:
            damaged[generator.integers(0, len(whole), 50)] = 0
        path.write_bytes(damaged.tobytes())
        for use in (check_server, lambda uri: make_store_file(Path(uri.removeprefix("sqlite:///")))):
            try:
                use(f"sqlite:///{path}")
            except UserError as error:
                messages.append(str(error))
    assert len(messages) > 200
    assert all(str(path) in each for each in messages)


@pytest.mark.parametrize("name", ["a?b", "a%20b", "a b", "a#b", "a'b", "ä"])
def test_the_folder_of_a_store_may_hold_what_means_something_in_an_address(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    store = open_store(TrackingConfig(), folder)
    assert sqlite_path(store.uri) == (folder / "mlflow.db").resolve()
    run_id = store.client.create_run(store.experiment_id).info.run_id
    store.client.log_text(run_id, "x", "text.txt")
    assert [each.path for each in store.client.list_artifacts(run_id)] == ["text.txt"]
    assert [each.name for each in tmp_path.iterdir()] == [name]
    assert sqlite_uri(folder / "x.db").startswith("sqlite")


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(UserError, match="expected for example sqlite"):
        check_server("sqlite://:::///x")
    assert sqlite_path("http://127.0.0.1:5000") is None


@pytest.mark.fault
def test_what_a_kill_left_half_written_is_rolled_back(processes: Processes, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE experiments (name TEXT)")
        connection.execute("INSERT INTO experiments VALUES ('Default')")
    run(processes, write_and_die, path)
    assert (tmp_path / "mlflow.db-journal").stat().st_size > 0
    check_server(sqlite_uri(path))
    assert is_finished(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM experiments").fetchone() == (1,)

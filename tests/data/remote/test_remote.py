"""Data far away: in a server that speaks S3 and in web servers, all on loopback."""

import errno
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.request import Request, urlopen

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pyarrow import fs

from clray.config.sections import DataConfig
from clray.data.first_config import write_first_config
from clray.data.load import check_files, kind_of, load_dataset, load_images
from clray.data.loaders import ordered_batches
from clray.data.remote import cache, systems
from clray.data.remote.address import FOLDER, Address, address_at
from clray.data.remote.cache import fetch_all, present, set_bound
from clray.data.remote.systems import RemoteFile
from clray.errors import UserError
from tests.conftest import png
from tests.data.readers.test_tar_shards import samples, write

SIZE = 150
PLAIN = {"Content-Type": "text/plain"}
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


def shard(path: Path, start: int, count: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": png(start + i, size=SIZE), "path": None} for i in range(count)]
    pq.write_table(pa.table({"image": images, "label": [i % 2 for i in range(count)]}), path, row_group_size=4)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What lies far away."""
    folder = tmp_path_factory.mktemp("far")
    for number in range(3):
        shard(folder / "hub" / f"train-{number:05d}-of-00003.parquet", 8 * number)
    shard(folder / "hub" / "test-00000-of-00001.parquet", 24)
    write(folder / "tars" / "train-000000.tar", samples())
    write(folder / "tars" / "test-000000.tar", samples(4))
    np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32))
    np.save(folder / "t.npy", np.arange(12) % 2)
    (folder / "photos").mkdir()
    for i in range(8):
        (folder / "photos" / f"{i}.png").write_bytes(png(i))
    rows = [(f"photos/{i}.png", "ab"[i % 2]) for i in range(8)]
    (folder / "list.csv").write_text("path,class\n" + "".join(f"{path},{label}\n" for path, label in rows))
    (folder / "list.jsonl").write_text("".join(f'{{"path": "{path}", "class": "{label}"}}\n' for path, label in rows))
    return folder


@pytest.fixture(scope="module")
def moto() -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.1)
    yield port
    server.kill()
    server.wait()


@pytest.fixture
def bucket(moto: int, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{moto}"}.items():
        monkeypatch.setenv(name, value)
    systems._open_system.cache_clear()
    systems._listing.cache_clear()
    s3 = fs.S3FileSystem(
        access_key="key", secret_key="secret", region="us-east-1", endpoint_override=f"127.0.0.1:{moto}", scheme="http",
        allow_bucket_creation=True,
    )  # fmt: skip
    s3.create_dir("bucket")
    fs.copy_files(str(files), "bucket/data", source_filesystem=fs.LocalFileSystem(), destination_filesystem=s3)
    return "s3://bucket/data"


class Web(SimpleHTTPRequestHandler):
    """Files of a folder, without ranges; breaks off as often as it is told to."""

    breaks: ClassVar[Counter[str]] = Counter()
    asked: ClassVar[Counter[str]] = Counter()

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        self.asked[name] += 1
        if self.breaks[name] > 0:
            self.breaks[name] -= 1
            path = Path(self.translate_path(self.path))
            self.send_response(200)
            self.send_header("Content-Length", str(path.stat().st_size))
            self.end_headers()
            self.wfile.write(path.read_bytes()[:1000])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        super().do_GET()


@pytest.fixture
def web(files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(systems, "WAIT_SECONDS", 0.01)
    Web.breaks.clear()
    Web.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Web(*args, directory=str(files)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., DataConfig]:
    def make(name: str, path: str, **changes: object) -> DataConfig:
        return DataConfig(name=name, train_path=path, cache_path=str(tmp_path / "cache"), **changes)

    return make


def in_cache(folder: Path) -> set[str]:
    return {path.name for path in (folder / "cache").rglob("*") if path.is_file() and not path.name.startswith(".")}


@pytest.mark.slow
@pytest.mark.parametrize("limit_mib", [1, 100])
@pytest.mark.parametrize("path", ["/hub", "/hub/", "/hub/*.parquet", "/**/t*.parquet"])
def test_parquet_in_s3_is_read_as_it_is_here(
    bucket: str, files: Path, config: Callable[..., DataConfig], path: str, limit_mib: int
) -> None:
    far = config("parquet", bucket + path, memory_limit_mib=limit_mib, image_size=SIZE, shuffle_row_groups=1)
    check_files(far)
    data = load_dataset(far)
    here = load_dataset(DataConfig(name="parquet", train_path=str(files / "hub")))
    assert (len(data.train), len(data.test)) == (24, 8)
    ((pixels, _),) = ordered_batches(data.train, np.arange(24), batch_size=24, config=far)
    np.testing.assert_array_equal(pixels, here.train.images.pixels)


@pytest.mark.slow
def test_tar_vectors_and_labels_in_s3_are_read(bucket: str, config: Callable[..., DataConfig], tmp_path: Path) -> None:
    data = load_dataset(config("tar", f"{bucket}/tars"))
    assert (len(data.train), len(data.test)) == (8, 4)
    vectors = load_dataset(config("embeddings", f"{bucket}/x.npy", labels_path=f"{bucket}/t.npy"))
    assert vectors.num_classes == 2
    assert in_cache(tmp_path) == {"train-000000.tar", "test-000000.tar", "x.npy", "t.npy"}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_list_in_s3_names_images_beside_it(bucket: str, config: Callable[..., DataConfig], form: str) -> None:
    data = load_dataset(config("csv", f"{bucket}/list.{form}"))
    assert (len(data.train) + len(data.test), data.num_classes) == (8, 2)


def test_a_list_in_a_web_server_names_images_beside_it_which_may_not_leave_it(
    web: str, config: Callable[..., DataConfig], files: Path
) -> None:
    assert len(load_images(config("csv", f"{web}/list.csv"))) == 8
    for number, name in enumerate(("../x.png", "/etc/hostname", "a/../../x.png")):
        (files / f"bad{number}.csv").write_text(f"path,class\n{name},a\nphotos/1.png,b\n")
        with pytest.raises(UserError, match=r"row 0.*(leaves the image root|no file)"):
            load_images(config("csv", f"{web}/bad{number}.csv"))


@pytest.mark.slow
def test_what_reads_an_address_is_told_by_its_files(bucket: str) -> None:
    # The command line makes a path of an argument, which leaves one slash.
    for text, kind in (("/hub", "parquet"), ("/tars", "tar"), ("/x.npy", "embeddings"), ("/hub/*.parquet", "parquet")):
        assert kind_of(Path(bucket + text)) == kind


@pytest.mark.slow
def test_a_file_that_left_the_cache_or_changed_comes_again(
    bucket: str, config: Callable[..., DataConfig], tmp_path: Path
) -> None:
    far = config("parquet", f"{bucket}/hub", memory_limit_mib=1, image_size=SIZE, shuffle_row_groups=1)
    data = load_dataset(far)
    assert not data.train.images.is_decoded
    shutil.rmtree(tmp_path / "cache")
    assert sum(len(rows) for _, rows in ordered_batches(data.train, np.arange(24), batch_size=6, config=far)) == 24
    assert len(in_cache(tmp_path)) == 3

    s3 = systems._open_system("s3", "bucket", os.getpid())
    shard(tmp_path / "other.parquet", 90, count=12)
    name = "train-00001-of-00003.parquet"
    fs.copy_files(str(tmp_path / "other.parquet"), f"bucket/data/hub/{name}", source_filesystem=fs.LocalFileSystem(),
                  destination_filesystem=s3)  # fmt: skip
    systems._listing.cache_clear()
    assert len(load_dataset(far).train) == 28


@pytest.mark.slow
def test_a_bucket_without_permission_and_one_that_is_not_there_are_named(
    bucket: str, moto: int, config: Callable[..., DataConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("s3://nowhere/x.parquet", f"{bucket}/nothing.parquet"):
        with pytest.raises(UserError, match=rf"{path}: no such file or folder"):
            check_files(config("parquet", path))
    reset = f"http://127.0.0.1:{moto}/moto-api/reset-auth"
    monkeypatch.setattr(systems, "WAIT_SECONDS", 0.01)
    try:
        urlopen(Request(reset, data=b"0", headers=PLAIN, method="POST")).read()
        systems._listing.cache_clear()
        for path in ("/hub", "/hub/test-00000-of-00001.parquet"):
            with pytest.raises(
                UserError, match=r"s3://bucket/data/hub.*: may not be read .*AWS_ACCESS_KEY_ID"
            ) as refusal:
                load_dataset(config("parquet", bucket + path))
            assert "secret" not in str(refusal.value).replace("AWS_SECRET", "")
    finally:
        urlopen(Request(reset, data=b"1e12", headers=PLAIN, method="POST")).read()


def test_a_file_of_a_web_server_is_fetched_once(web: str, config: Callable[..., DataConfig]) -> None:
    far = config(
        "parquet", f"{web}/hub/train-00000-of-00003.parquet", test_path=f"{web}/hub/test-00000-of-00001.parquet"
    )
    check_files(far)
    for _ in range(2):
        data = load_dataset(far)
        assert (len(data.train), len(data.test)) == (8, 8)
    assert Web.asked["train-00000-of-00003.parquet"] == 1
    assert len(load_images(config("tar", f"{web}/tars/train-000000.tar"))) == 8
    with pytest.raises(UserError, match=r"nothing\.parquet: no such file or folder"):
        check_files(config("parquet", f"{web}/nothing.parquet"))


def test_a_server_that_breaks_off_is_asked_again_and_then_named(
    web: str, config: Callable[..., DataConfig], tmp_path: Path
) -> None:
    name = "train-00000-of-00003.parquet"
    far = config("parquet", f"{web}/hub/{name}")
    Web.breaks[name] = 2
    assert len(load_images(far)) == 8
    shutil.rmtree(tmp_path / "cache")
    Web.breaks[name] = 100
    with pytest.raises(UserError, match=rf"{name}: cannot be read, after 3 attempts"):
        load_images(far)
    assert in_cache(tmp_path) == set()
    assert not list(tmp_path.rglob("*.partial"))


def test_a_server_that_refuses_is_named_at_once(config: Callable[..., DataConfig]) -> None:
    class Refuses(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.send_error(403)

        do_GET = do_HEAD

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(UserError, match=r"x\.parquet: may not be read \(403"):
            check_files(config("parquet", f"http://127.0.0.1:{server.server_port}/x.parquet"))
        server.shutdown()


def test_the_least_recently_used_files_leave_a_full_cache(web: str, files: Path, tmp_path: Path) -> None:
    names = [f"hub/train-{number:05d}-of-00003.parquet" for number in range(3)]
    sizes = [(files / name).stat().st_size for name in names]
    root = (tmp_path / "cache").resolve()
    set_bound(root, sum(sizes) - 1)
    places = [Address.parse(f"{web}/{name}").place(root) for name in names]
    for place in places[:2]:
        present(place)
    time.sleep(0.01)
    present(places[0])
    present(places[2])
    assert [place.exists() for place in places] == [True, False, True]
    total = sum(path.stat().st_size for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
    assert total < sum(sizes)
    set_bound(root, 1000)
    with pytest.raises(UserError, match=r"more than data\.cache_limit_gib=.*; raise it"):
        present(places[1])


def test_more_data_than_the_cache_holds_are_trained_on(web: str, files: Path, tmp_path: Path) -> None:
    size = (files / "hub" / "train-00000-of-00003.parquet").stat().st_size
    far = DataConfig(
        name="parquet", train_path=f"{web}/hub/train-{{00000..00002}}-of-00003.parquet", memory_limit_mib=1,
        test_path=f"{web}/hub/test-00000-of-00001.parquet", cache_path=str(tmp_path / "cache"), image_size=SIZE,
        cache_limit_gib=1.5 * size / 2**30, shuffle_row_groups=1,
    )  # fmt: skip
    data = load_dataset(far)
    assert data.train.images.is_sequential
    for part in (data.train, data.test, data.train):
        assert sum(len(rows) for _, rows in ordered_batches(part, np.arange(len(part)), batch_size=4, config=far)) > 0
        assert len(in_cache(tmp_path)) == 1


def test_decoding_processes_find_the_files_of_their_batches(web: str, tmp_path: Path) -> None:
    far = DataConfig(
        name="tar", train_path=f"{web}/tars/train-000000.tar", cache_path=str(tmp_path / "cache"), image_size=1024,
        memory_limit_mib=1, num_decoders=1, test_path=f"{web}/tars/test-000000.tar",
    )  # fmt: skip
    data = load_dataset(far)
    shutil.rmtree(tmp_path / "cache")
    assert sum(len(rows) for _, rows in ordered_batches(data.train, np.arange(8), batch_size=4, config=far)) == 8


@pytest.mark.parametrize("how", ["before", "while"])
def test_a_full_disk_is_named(web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if how == "before":
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage._replace(free=10))
    else:
        monkeypatch.setattr(cache, "copy", fail)
    place = Address.parse(f"{web}/x.npy").place(tmp_path.resolve())
    with pytest.raises(UserError, match=rf"data\.cache_path: {tmp_path} is full: {web}/x\.npy needs .* GiB"):
        present(place)
    assert not list(tmp_path.rglob("*.partial"))


def test_processes_that_want_a_file_at_once_fetch_it_once(web: str, tmp_path: Path) -> None:
    place = Address.parse(f"{web}/x.npy").place(tmp_path.resolve())
    code = (
        "import sys; from pathlib import Path; from clray.data.remote.cache import present; present(Path(sys.argv[1]))"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(place)]) for _ in range(2)]
    assert [each.wait(60) for each in running] == [0, 0]
    assert Web.asked["x.npy"] == 1


@pytest.mark.parametrize(
    "text",
    ["s3://bucket/a b/c%20d.parquet", "gs://b/../../etc/passwd", "hf://datasets/user/name/data/x.parquet",
     "https://host:8000/a//b/./.hidden", "s3://b/%2E%2E/x", "s3://b/%/%%2E/é/x=1/*.parquet", "s3://b/.../~/..."],
)  # fmt: skip
def test_an_address_is_told_again_from_its_place_which_stays_below_the_root(text: str, tmp_path: Path) -> None:
    address = Address.parse(text)
    place = address.place(tmp_path)
    assert address_at(place) == (address, tmp_path)
    assert Path(os.path.normpath(place)) == place
    assert place.is_relative_to(tmp_path / FOLDER / address.scheme)
    assert Address.parse(Path(text)).scheme == address.scheme


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s3://key:secret@bucket/x", r"s3://bucket/x: leave user and password out"),
        ("https://host/x.parquet?sig=secret", r"https://host/x\.parquet: give the address of the file alone"),
        (f"s3://bucket/{'x' * 300}", "too long for a file"),
    ],
)
def test_an_address_with_secrets_or_too_long_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        Address.parse(text).place(tmp_path)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("text", ["/a/s3.parquet", "s3/x", "data/hf:x", "C:/x", "file:///x", ""])
def test_what_is_no_address_is_a_file_here(text: str) -> None:
    assert Address.parse(text) is None


def test_a_hub_is_reached_by_its_own_path(
    files: Path, config: Callable[..., DataConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hub(MemoryFileSystem):
        store: ClassVar[dict[str, Any]] = {}
        pseudo_dirs: ClassVar[list[str]] = [""]
        protocol = "hf"

    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "hf", Hub)
    systems._open_system.cache_clear()
    systems._listing.cache_clear()
    hub = Hub()
    for file in (files / "hub").iterdir():
        hub.pipe_file(f"/datasets/user/name/data/{file.name}", file.read_bytes())
    data = load_dataset(config("parquet", "hf://datasets/user/name"))
    assert (len(data.train), len(data.test)) == (24, 8)
    systems._open_system.cache_clear()


def test_a_missing_package_names_the_extra(config: Callable[..., DataConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    systems._open_system.cache_clear()
    with pytest.raises(UserError, match=r"hf:// needs a package that is missing .*pip install 'clray\[hf\]'"):
        check_files(config("parquet", "hf://datasets/user/name"))


def test_google_storage_opens_without_asking_anyone() -> None:
    system, path = systems._system_of(Address.parse("gs://bucket/folder/x.parquet"))
    assert (system.type_name, path) == ("gcs", "bucket/folder/x.parquet")


def test_folders_are_not_read_from_afar(config: Callable[..., DataConfig]) -> None:
    with pytest.raises(
        UserError, match=r"data\.train_path: s3://b/x: data\.name=imagefolder is read from this machine"
    ):
        check_files(config("imagefolder", "s3://b/x"))


def test_copies_of_files_that_have_changed_are_replaced_by_size(web: str, files: Path, tmp_path: Path) -> None:
    address, root = Address.parse(f"{web}/t.npy"), tmp_path.resolve()
    size = (files / "t.npy").stat().st_size
    for _ in range(2):
        fetch_all(root, [RemoteFile(address, size)])
    assert Web.asked["t.npy"] == 1
    place = address.place(root)
    place.write_bytes(b"cut")
    fetch_all(root, [RemoteFile(address, size)])
    assert place.read_bytes() == (files / "t.npy").read_bytes()


@pytest.mark.slow
def test_a_pattern_without_an_ending_and_a_first_config_know_addresses(bucket: str, tmp_path: Path) -> None:
    assert kind_of(Path(f"{bucket}/hub/train-*")) == "parquet"
    path, found = write_first_config(Path(f"{bucket}/hub"), tmp_path / "first.yaml")
    assert (found.num_images, found.data["train_path"]) == (32, f"{bucket}/hub")
    assert f"train_path: {bucket}/hub" in path.read_text().replace('"', "")


def test_a_first_config_is_not_written_for_vectors(files: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.npy: holds vectors and no images\..* data\.name=embeddings"):
        write_first_config(files / "x.npy", tmp_path / "first.yaml")

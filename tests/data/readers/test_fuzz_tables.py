"""Generated tables, CSV and Parquet, of every type and with every oddity: read or refused, in seconds, never else."""

import io
import os
import time
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clray.config.sections import DataConfig
from clray.data.check import check_data
from clray.data.load import load_dataset, load_descriptions
from clray.data.readers.tables import read_columns
from clray.errors import UserError
from tests.conftest import png

NUM_TABLES = int(os.environ.get("CLRAY_FUZZ_TABLES", "150"))
MAX_SECONDS = 5.0
TEXTS = ["NA", "None", "null", "n/a", "nan", "inf", "-inf", "1e5", "007", "1e400", "9" * 20, "-1", "0", "-0", "1.5",
         " ", "", "a,b", 'say "x"', "ä€😀", "\x00", "\x1b[31m", "line\nbreak", "=1+1", "../../etc/passwd", "[/b]",
         "2024-02-30", "True", "x" * 300]  # fmt: skip
FOREIGN = [
    pa.list_(pa.struct([("a", pa.int8())])),
    pa.map_(pa.string(), pa.int8()),
    pa.binary(3),
]


def accepted_or_refused(path: Path, name: str, generator: np.random.Generator) -> bool:
    """Whether the data load; whatever else than a refusal of the user is a fault, and so is taking long."""
    start, was_read = time.process_time(), False
    config = DataConfig(
        name=name, train_path=str(path), on_bad_image=str(generator.choice(["error", "skip"])), list_separator=";"
    )
    for call in (load_dataset, load_descriptions, check_data, lambda _: read_columns(path, ("label", "x"))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                call(config)
                was_read = was_read or call is load_dataset
            except UserError as refusal:
                if " object at 0x" in str(refusal) or not str(refusal).strip():
                    raise AssertionError(f"no message for a user: {refusal}") from refusal
    assert time.process_time() - start < MAX_SECONDS
    return was_read


def random_column(generator: np.random.Generator, count: int) -> pa.Array:
    """A column of any type that Parquet can hold, with some values missing."""
    texts = [str(each) for each in generator.choice(TEXTS, count)]
    numbers = generator.integers(-(2**62), 2**62, count) >> generator.integers(0, 62)
    kinds = {
        "text": lambda: pa.array(texts, generator.choice([pa.string(), pa.large_string(), pa.string_view()])),
        "words": lambda: pa.array(texts).dictionary_encode(),
        "whole": lambda: pa.array(numbers),
        "small": lambda: pa.array(numbers.astype(np.int8)),
        "unsigned": lambda: pa.array(numbers.astype(np.uint64)),
        "float": lambda: pa.array(generator.choice([1e308, -1e308, 5e-324, np.nan, np.inf, 0.1], count)),
        "spread": lambda: pa.array(generator.lognormal(sigma=generator.choice([1e-16, 1, 200]), size=count)),
        "half": lambda: pa.array(generator.normal(size=count).astype(np.float16)),
        "flag": lambda: pa.array(generator.random(count) < 0.5),
        "date": lambda: pa.array(numbers.astype(np.int32)).cast(pa.date32()),
        "time": lambda: pa.array(numbers).cast(pa.timestamp(generator.choice(["ms", "us", "ns"]), "UTC")),
        "wait": lambda: pa.array(numbers).cast(pa.duration("s")),
        "list": lambda: pa.array([texts[: generator.integers(3)] for _ in range(count)]),
        "numbers": lambda: pa.array([numbers[: generator.integers(3)].tolist() for _ in range(count)]),
        "bytes": lambda: pa.array([text.encode() for text in texts]),
        "nothing": lambda: pa.nulls(count),
        "foreign": lambda: pa.nulls(count, FOREIGN[generator.integers(len(FOREIGN))]),
    }
    column = kinds[str(generator.choice(list(kinds)))]()
    if generator.random() < 0.3:
        column = column.take(pa.array([None if generator.random() < 0.2 else i for i in range(count)], pa.int64()))
    return column


def random_images(generator: np.random.Generator, count: int) -> pa.Array:
    blobs = [png(int(generator.integers(5))) if generator.random() < 0.95 else b"broken" for _ in range(count)]
    form = generator.integers(6)
    if form == 0:
        return pa.array(blobs)
    if form == 1:
        return pa.array(blobs, pa.large_binary()).dictionary_encode()
    if form == 2:
        return pa.array([None if generator.random() < 0.1 else blob for blob in blobs])
    if form == 3:
        paths = [str(generator.choice(["a.png", "../x", "/etc/passwd", "", "\x00", "no.png"])) for _ in blobs]
        return pa.array(
            [{"bytes": None if generator.random() < 0.2 else b, "path": p} for b, p in zip(blobs, paths, strict=True)]
        )
    return pa.array([{"bytes": blob, "path": None} for blob in blobs])


def test_generated_parquet_files_load_or_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    outcomes = []
    for seed in range(NUM_TABLES):
        generator = np.random.default_rng(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        for shard in range(generator.integers(1, 4)):
            count = int(generator.choice([0, 1, 2, 30], p=[0.05, 0.05, 0.1, 0.8]))
            is_plain = generator.random() < 0.6
            label = pa.array([i % 2 for i in range(count)], pa.int64()) if is_plain else random_column(generator, count)
            columns = {"image": random_images(generator, count), "label": label}
            for name in ("x", "Unnamed: 0", "b.c", "ä")[: generator.integers(5)]:
                columns[name] = random_column(generator, count)
            part = generator.choice(["", "train-", "test-"], p=[0.7, 0.2, 0.1])
            pq.write_table(pa.table(columns), folder / f"{part}{shard}.parquet")
        outcomes.append(accepted_or_refused(folder, "parquet", generator))
    assert 0.1 < np.mean(outcomes) < 0.9, "both are tried"


def random_csv(generator: np.random.Generator, count: int) -> bytes:
    names = [
        str(each)
        for each in generator.choice(["x", "", "Unnamed: 0", "x", "y", "größe", "a\nb"], generator.integers(4))
    ]
    header = ["path", "class", "label", *dict.fromkeys(names)]
    rows = []
    for i in range(count):
        label = str(generator.integers(3)) if generator.random() < 0.9 else str(generator.choice(TEXTS))
        path = f"{i % 6}.png" if generator.random() < 0.95 else str(generator.choice(TEXTS))
        rows.append([path, label, label, *(str(generator.choice(TEXTS)) for _ in header[3:])])
    buffer = io.StringIO()
    separator = str(generator.choice([",", ";", "\t"], p=[0.9, 0.05, 0.05]))
    for row in [header, *rows]:
        must_quote = generator.random() < 0.97
        cells = [
            '"' + cell.replace('"', '""') + '"' if must_quote and set(cell) & set(',"\n;\t') else cell for cell in row
        ]
        if generator.random() < 0.003:
            cells.append("")
        buffer.write(separator.join(cells) + str(generator.choice(["\n", "\r\n"])))
    encoding = str(generator.choice(["utf-8", "utf-8-sig", "utf-16", "latin-1"], p=[0.7, 0.2, 0.05, 0.05]))
    return buffer.getvalue().encode(encoding, "replace")


def test_generated_csv_files_load_or_are_refused(tmp_path: Path) -> None:
    for i in range(6):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    outcomes = []
    for seed in range(NUM_TABLES):
        generator = np.random.default_rng(1000 + seed)
        path = tmp_path / "fuzz.csv"
        path.write_bytes(random_csv(generator, int(generator.choice([0, 1, 6, 6, 12]))))
        outcomes.append(accepted_or_refused(path, "csv", generator))
    assert 0.1 < np.mean(outcomes) < 0.9, "both are tried"


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "t.csv"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path = Path("/dev/zero")
    with pytest.raises(UserError, match="expected a file"):
        load_dataset(DataConfig(name="csv", train_path=str(path)))

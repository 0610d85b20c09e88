import os
import time
from pathlib import Path

import pytest
import yaml

from clray.config import load_config
from clray.config.yaml_text import LARGEST_BYTES, dump, parse_yaml, read_yaml
from clray.errors import UserError

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{below}'] * 10)}]\n" for below, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGE_BOMB = "a: &a {k: 1}\n" + "".join(
    f"b{i}: &b{i} {{<<: [{', '.join([f'*b{i - 1}' if i else '*a'] * 10)}]}}\n" for i in range(9)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("1E5", 1e5), ("-2.5e+2", -250.0), (".5", 0.5), ("10_000", 10_000), ("0", 0), ("-7", -7),
        ("007", "007"), ("12:30", "12:30"), ("2026-01-31", "2026-01-31"), ("0x1F", "0x1F"), ("1.2.3", "1.2.3"),
        ("'1e5'", "1e5"), ("!!str 7", "7"), ("=", "="), ("yes", True), ("off", False), ("~", None), ("", None),
        ("[1, a]", [1, "a"]), ("e", "e"), (".", "."), ("1_0e1", "1_0e1"), ("naïve ✓", "naïve ✓"),
    ],
)  # fmt: skip
def test_words_and_numbers_are_told_apart(text: str, value: object) -> None:
    found = parse_yaml(text, "x")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "value", ["1e5", "007", "12:30", "2026-01-31", "yes", "null", "1_000", "-", "=", "", "a: b", "#", "0x1F", "é", " x"]
)
def test_a_text_that_looks_like_something_else_is_written_in_quotes(value: str) -> None:
    assert parse_yaml(dump({"x": value}), "x") == {"x": value}
    assert yaml.safe_load(dump({"x": value})) == {"x": value}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\ndata: {}\nseed: 2\n", r"line 3: .*'seed' stands twice, first in line 1"),
        ("data:\n  name: csv\n  name: digits\n", r"line 3: .*'name' stands twice"),
        ("1: 2", r"line 1: .*a key must be text"),
        ("yes: 2", "a key must be text"),
        ("? [a]\n: 2", "a key must be text"),
        ("seed:\n\t1\n", "line 2"),
        ("a: !!python/name:os.system x", "tag .* is not allowed"),
        ("a: !!timestamp 2026-13-45", "tag .* is not allowed"),
        ("a: !!binary x", "tag .* is not allowed"),
        ("a: !!bool maybe", "tag .* is not allowed"),
        ("a: *b", "undefined alias"),
        ("--- a\n--- b\n", "expected a single document"),
        ("a: {", "line 1"),
        ("a: \0", "special characters are not allowed"),
        ("[" * 1000, "line 1: .*nested more than 50 deep"),
        ("a: " * 3, "mapping values are not allowed"),
        ("a: " + "9" * 5000, "not readable as YAML"),
        (MERGE_BOMB, "more than 100000 keys"),
    ],
)
def test_what_no_config_needs_is_refused_with_its_line(text: str, message: str) -> None:
    start = time.process_time()
    with pytest.raises(UserError, match=message):
        parse_yaml(text, "x.yaml")
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "more than 100000 values, repetitions included"),
        ("data: &d\n  name: *d\n", "nested more than 50 deep"),
        ("&a [*a]", "expected a mapping of sections"),
        ("data: 2026-01-31", "data must be a section of keys; got '2026-01-31'"),
        ("data: {name: 2026-01-31}", r"data\.name must be 'digits'"),
        ("clusters: {num_clusters: yes}", r"clusters\.num_clusters must be a number; got true"),
        ("clusters: {num_clusters: '5'}", r"clusters\.num_clusters must be a number; got '5'"),
        ("clusters: {num_clusters: 5.5}", r"clusters\.num_clusters must be a whole number; got 5\.5"),
        ("clusters: {num_clusters: 3000000000}", r"clusters\.num_clusters must be less than or equal to 2147483647"),
        ("clusters: {num_clusters: [5]}", r"clusters\.num_clusters must be a valid integer; got \[5\]"),
        ("clusters: {num_clusters: }", r"clusters\.num_clusters must be a valid integer; got null"),
        ("objective: {temperature: .nan}", r"objective\.temperature must be a finite number; got nan"),
        ("objective: {temperature: .inf}", r"objective\.temperature must be a finite number; got inf"),
        ("objective: {temperature: true}", r"objective\.temperature must be a number; got true"),
        ("augmentation: {jitter_probability: .nan}", r"augmentation\.jitter_probability must be .*got nan"),
        ("kmeans: {spherical: 1}", r"kmeans\.spherical must be true or false; got 1"),
        ("kmeans: {spherical: maybe}", r"kmeans\.spherical must be true or false; got 'maybe'"),
        ("data: {label_column: 7}", r"data\.label_column must be text, in quotes .*; got 7"),
        ("objective: {name: [supcon]}", r"objective\.name must be text, .*got \['supcon'\]"),
        ("objective: {name: supcon}\nclusters: 5", "clusters must be a section of keys; got 5"),
        ("search_space: 5", "search_space must be a list; got 5"),
        ("seed: 5000000000", "seed must be less than or equal to 4294967295"),
        ("output: " + "x" * 5000, "output must have at most 4096 characters"),
        ("output: \"a\\0b\"", "output must be text without null characters"),
        ("".join(f"y{i}: 1\n" for i in range(500)), "and 480 more problems"),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    start = time.process_time()
    with pytest.raises(UserError, match=message):
        load_config(tmp_path / "x.yaml")
    assert time.process_time() - start < 3


def test_a_whole_number_may_be_written_as_a_float_and_a_section_be_empty(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("\ufeffkmeans:\ntrain: {num_epochs: 2e1}\n", encoding="utf-8")
    config = load_config(str(tmp_path / "x.yaml"))
    assert config.train.num_epochs == 20
    assert type(config.train.num_epochs) is int


def test_a_file_that_is_none_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    (tmp_path / "utf16.yaml").write_text("seed: 1", encoding="utf-16")
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    (tmp_path / "huge.yaml").write_bytes(b"#" * (LARGEST_BYTES + 1))
    (tmp_path / "file").touch()
    for name, message in [
        ("fifo.yaml", "no regular file"), ("loop.yaml", "cannot be read"), ("utf16.yaml", "no text in UTF-8"),
        ("binary.yaml", "no text in UTF-8"), ("huge.yaml", "more than 262144 bytes"), ("", "a folder"),
        ("nowhere.yaml", "no such config file"), ("file/x.yaml", "no such config file"),
        ("x" * 300, "cannot be read"), ("a\0b", "cannot be read"),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=message):
            read_yaml(tmp_path / name)


def test_a_text_of_very_many_values_is_refused_in_seconds() -> None:
    start = time.process_time()
    with pytest.raises(UserError, match=r"line 1: .*more than 20000 values"):
        parse_yaml("[" + "[1]," * 60_000 + "]", "x")
    assert time.process_time() - start < 20

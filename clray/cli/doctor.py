"""clray doctor: what is installed and reachable, one line per check, nothing changed."""

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

import typer

from clray.cli.options import AsJson, TrackingUri
from clray.cli.terminal import print_values, status
from clray.redaction import hide_credentials

PACKAGES = ("clray", "torch", "torchvision", "ray", "mlflow", "numpy")


@dataclass(frozen=True)
class Check:
    """One finding; `ok` is False for what must be put right."""

    name: str
    finding: str
    ok: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "finding", hide_credentials(self.finding))


def doctor(tracking_uri: TrackingUri = None, as_json: AsJson = False) -> None:
    """Versions, GPUs, the FAISS build, and whether Ray and MLflow can be reached."""
    with status("checking", quiet=as_json):
        checks = examine(tracking_uri)
    print_values({check.name: check.finding for check in checks}, as_json=as_json)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


def examine(tracking_uri: str | None) -> list[Check]:
    """Versions, GPUs, the FAISS build, and whether Ray and MLflow can be reached."""
    checks = [Check("python", platform.python_version())]
    for package in PACKAGES:
        try:
            checks.append(Check(package, metadata.version(package)))
        except metadata.PackageNotFoundError:
            checks.append(Check(package, "missing; install clray with pip again", ok=False))
    probes: dict[str, Callable[[], str]] = {
        "faiss": _faiss,
        "gpus": _gpus,
        "ray cluster": _ray_cluster,
        "tracking": lambda: _tracking(tracking_uri),
    }
    for name, probe in probes.items():
        try:
            checks.append(Check(name, probe()))
        except Exception as error:  # whatever is broken is what this reports
            lines = str(error).strip().splitlines()
            checks.append(Check(name, f"broken: {lines[0] if lines else type(error).__name__}", ok=False))
    return checks


def _faiss() -> str:
    import faiss

    return f"{faiss.__version__}, {faiss.get_num_gpus()} GPUs, {faiss.omp_get_max_threads()} threads"


def _gpus() -> str:
    import torch
    import torchvision  # noqa: F401  (a pair of torch and torchvision that do not match fails here)

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ", ".join(names) or "none (CPU only)"


def _ray_cluster() -> str:
    import ray

    from clray.ray_runtime.cluster import start_ray

    start_ray()
    resources = ray.cluster_resources()
    where = os.environ.get("RAY_ADDRESS") or "a new local cluster"
    return f"{where}: {resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs"


def _tracking(uri: str | None) -> str:
    from clray.track.mlflow import check_server

    if uri is None:
        return "SQLite in the output folder"
    check_server(uri)
    return f"{uri} answers"

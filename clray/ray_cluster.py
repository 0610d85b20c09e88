"""The Ray cluster that the work runs on: joining one or starting one on this machine, and what it has room for."""

import logging
import math
import os
import socket

import ray
from ray._private import ray_constants
from ray._private import worker as ray_worker

from clray.config import UserError

CONNECT_TIMEOUT_SECONDS = 5.0


def start_ray(*, needed_cpus: float = 1.0, dashboard: bool = False, verbose: bool = False) -> None:
    """Connect to the cluster in RAY_ADDRESS (as under `ray job submit`), or start one on this machine.

    A local cluster listens on loopback only. It offers at least `needed_cpus`, so that a run with more workers than
    cores goes on, slower. `dashboard` is needed where worker groups run inside trials: the cleaner that frees their
    placement groups asks its State API.

    Raises:
        UserError: a cluster that does not answer, or no free port.
    """
    if ray.is_initialized():
        return
    # Warnings of the raylet are printed whatever log_to_driver says (Ray 2.60).
    ray_worker._worker_logs_enabled = verbose
    # Ray 2.60 warns in every process about a future default of this variable.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    address = os.environ.get("RAY_ADDRESS")
    if address:
        _require_answer(address)
        try:
            ray.init(address=address, logging_level=logging.INFO if verbose else logging.ERROR, log_to_driver=verbose)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"RAY_ADDRESS={address}: no Ray cluster answers there ({reason}); unset it to run here"
            ) from error
        return
    require_free_port()
    _keep_to_loopback()
    ray.init(
        address="local",
        num_cpus=max(os.cpu_count() or 1, math.ceil(needed_cpus - 1e-6)),
        include_dashboard=dashboard,
        dashboard_host="127.0.0.1",
        logging_level=logging.INFO if verbose else logging.ERROR,
        log_to_driver=verbose,
    )


def _require_answer(address: str) -> None:
    """Raise UserError where nothing listens at HOST:PORT; Ray itself would go on trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_SECONDS).close()
    except OSError as error:
        raise UserError(
            f"RAY_ADDRESS={address}: no Ray cluster answers there ({error.strerror or error}); unset it to run here"
        ) from error


def _keep_to_loopback() -> None:
    """Make the local cluster that is started next listen on 127.0.0.1 only.

    Ray 2.60 replaces a node address of 127.0.0.1 by that of the network interface and then listens on every interface,
    unless this switch, which it keeps for the firewalls of other systems, says that there is only this machine.
    """
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # read when Ray is imported: for the processes it starts
    ray_constants.ENABLE_RAY_CLUSTER = False


def require_free_port() -> None:
    """Raise UserError where no port can be bound on loopback, which Ray would only report as a time-out."""
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
    except OSError as error:
        raise UserError(
            f"no free port on 127.0.0.1 ({error.strerror}); Ray needs about ten. End processes that hold ports, or "
            "connect to a running cluster with RAY_ADDRESS"
        ) from error


def require_resources(needed: dict[str, float], purpose: str) -> None:
    """Raise UserError where the cluster as a whole can never offer what is needed; it would wait for ever."""
    total = ray.cluster_resources()
    for name, amount in needed.items():
        if amount > total.get(name, 0.0) + 1e-6:
            raise UserError(
                f"{purpose} need {amount:g} {name}s and the Ray cluster has {total.get(name, 0.0):g}. Lower "
                "train.num_workers, train.cpus_per_worker or train.gpus_per_worker, kmeans.num_shards, "
                "kmeans.cpus_per_shard or kmeans.gpus_per_shard"
            )

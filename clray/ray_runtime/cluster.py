"""The Ray cluster that the work runs on: joining one or starting one on this machine, and what it has room for."""

import logging
import math
import os
import signal
import socket
import threading
import urllib.request
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

import ray
from ray._private import ray_constants
from ray._private import worker as ray_worker
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # made by Cython
from ray._raylet import Config as RayConfig  # type: ignore[attr-defined]
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from clray.errors import UserError
from clray.interrupts import interrupt
from clray.ray_runtime.private_folder import make_private_folder
from clray.ray_runtime.room import NOTHING, Group, Node, count_groups, describe

log = logging.getLogger(__name__)
CONNECT_TIMEOUT_SECONDS = 5.0


def start_ray(*, needed_cpus: float = 1.0, dashboard: bool = False, verbose: bool = False) -> None:
    """Connect to the cluster in RAY_ADDRESS (as under `ray job submit`), or start one on this machine.

    A local cluster listens on loopback only and keeps its files in a private folder. It offers at least `needed_cpus`,
    so that a run with more workers than cores continues, slower. `dashboard` is needed where worker groups run inside
    trials: the cleaner that frees their placement groups asks its State API.

    Raises:
        UserError: a cluster that does not answer, or one here that cannot start: no free port, no folder for temporary
            files that sockets fit in, or a machine that is too busy.
    """
    if ray.is_initialized():
        return
    # Warnings of the raylet are printed whatever log_to_driver says (Ray 2.60).
    ray_worker._worker_logs_enabled = verbose
    # Else what asks for no GPU sees all of them.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    on_sigterm = signal.getsignal(signal.SIGTERM)
    address = os.environ.get("RAY_ADDRESS")
    if address:
        _require_answer(address)
        _use_token()
        try:
            joined = ray.init(
                address=address, logging_level=logging.INFO if verbose else logging.ERROR, log_to_driver=verbose
            )
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.AuthenticationError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"RAY_ADDRESS={address}: no Ray cluster can be joined there ({reason}). Where it asks for a token, set "
                "RAY_AUTH_TOKEN; or unset RAY_ADDRESS to run here"
            ) from error
        _warn_of_open_dashboard(joined.dashboard_url)
        _end_as_by_ctrl_c(on_sigterm)
        return
    require_free_port()
    _keep_to_loopback()
    folder = make_private_folder(ray.shutdown)
    try:
        ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, math.ceil(needed_cpus - 1e-6)),
            include_dashboard=dashboard,
            dashboard_host="127.0.0.1",
            logging_level=logging.INFO if verbose else logging.ERROR,
            log_to_driver=verbose,
            _temp_dir=str(folder),
        )
    except Exception as error:  # Ray names no kind of its own for a start that fails
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"Ray cannot start on this machine: {reason} It may be too busy, or out of memory, disk or processes; end "
            "what else runs here, and try again"
        ) from error
    _end_as_by_ctrl_c(on_sigterm)


def _use_token() -> None:
    """Send the token that there is, as `ray start` asks for it; by itself Ray joins a cluster without one."""
    if not os.environ.get("RAY_AUTH_MODE") and AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
        os.environ["RAY_AUTH_MODE"] = "token"
        RayConfig.initialize("")  # what Ray has read at its import


def _warn_of_open_dashboard(url: str | None) -> None:
    """Its job server runs whatever it is sent, for whoever reaches it where no token is asked for."""
    host = (url or "").rpartition(":")[0]
    if host not in ("", "127.0.0.1", "localhost", "[::1]") and _is_open(f"http://{url}/api/version"):
        log.warning(
            "the dashboard of the Ray cluster, %s, is open to its network without a token: who reaches it can run code "
            "there. Start the head by `ray start --head --dashboard-host=127.0.0.1`, or the cluster with "
            "RAY_AUTH_MODE=token",
            url,
        )


def _is_open(url: str) -> bool:
    """Whether a request without a token is answered; a token of this process does not say that one is asked for."""
    try:
        urllib.request.urlopen(url, timeout=CONNECT_TIMEOUT_SECONDS).close()
    except OSError:
        return False
    return True


def _end_as_by_ctrl_c(before: object) -> None:
    """Let SIGTERM, which `ray job stop` sends, do what Ctrl-C does; Ray's own handler would leave at once.

    A handler that was there `before` Ray came is put back.
    """

    def stop(_: int, __: FrameType | None) -> None:
        interrupt()

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before if callable(before) else stop)


def require_shared_folder(folder: Path) -> None:
    """Check that every node of the cluster writes into the folder that this process reads.

    A node that is lost meanwhile, or cannot be asked, is told in a warning: the others may do without it.

    Raises:
        UserError: a node's file does not arrive here, or cannot be written there; names the nodes.
    """
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if len(nodes) < 2:
        return
    folder.mkdir(parents=True, exist_ok=True)
    probe = f".clray-probe-{uuid.uuid4().hex}"
    written = {
        node: _write_probe.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            str(folder / f"{probe}-{node}")
        )
        for node in nodes
    }
    missing = []
    for node, reference in written.items():
        file = folder / f"{probe}-{node}"
        try:
            reason = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            reason = str(error).strip().splitlines()[-1]
        except ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            log.warning("node %s could not be asked whether it shares %s (%s)", nodes[node], folder, lines[0])
            file.unlink(missing_ok=True)
            continue
        if reason is not None or not file.exists():
            missing.append(f"{nodes[node]} ({reason or 'its file cannot be seen from here'})")
        file.unlink(missing_ok=True)
    if missing:
        raise UserError(
            f"output: {folder} is not one folder on all {len(nodes)} nodes; not on {', '.join(missing)}. Set output to "
            "a folder that all nodes share, such as one on NFS"
        )


@ray.remote(num_cpus=0, max_retries=0)
def _write_probe(path: str) -> str | None:
    """Write an empty file; returns why not, in a line."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    except OSError as error:
        return str(error.strerror)
    return None


def _require_answer(address: str) -> None:
    """Raise UserError where nothing listens at HOST:PORT; Ray itself would keep trying for minutes."""
    if not address.rpartition(":")[2].isdigit():
        return
    try:
        connect(address.removeprefix("ray://"))
    except OSError as error:
        raise UserError(
            f"RAY_ADDRESS={address}: no Ray cluster answers there ({error.strerror or error}); unset it to run here"
        ) from error


def connect(address: str) -> None:
    """Raise OSError where nothing listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_SECONDS).close()


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


def cluster_nodes() -> list[Node]:
    """What each node of the cluster has where nothing runs on it, in the order in which Ray deals actors to them."""
    return [
        Node(
            node["Resources"].get("CPU", 0.0), (1.0,) * int(node["Resources"].get("GPU", 0.0)), node.get("Labels") or {}
        )
        for node in sorted(ray.nodes(), key=lambda node: node["NodeID"])
        if node["Alive"]
    ]


def room(group: Group, *, beside: Group = NOTHING, labels: Mapping[str, str] | None = None) -> float:
    """How many such groups the cluster runs at once, beside a group that is started first.

    Args:
        labels: Ray's label selectors of the nodes on which `beside` may be; by default all.
    """
    nodes = cluster_nodes()
    return count_groups(nodes, group, beside=beside, on=[carries(node.labels, labels or {}) for node in nodes])


def require_room(
    group: Group, purpose: str, *, beside: Group = NOTHING, labels: Mapping[str, str] | None = None
) -> None:
    """Check that one such group fits on the nodes of the cluster; else it would wait for ever.

    Args:
        purpose: what the group is for, such as "a trial".
        beside, labels: as for `room`; k-means shards, which may be all that is asked for.

    Raises:
        UserError: it does not fit; names what is asked for and what the nodes have. Or no node carries the labels.
    """
    if labels and beside.size:
        require_labels(labels, "kmeans.node_labels" if group.size else "node_labels")
    for each in (group, beside):
        if each.bundle.gpus > 1 and each.bundle.gpus % 1:
            raise UserError(f"{purpose} needs {each}; Ray gives whole GPUs, or a fraction of one")
    if room(group, beside=beside, labels=labels) >= 1:
        return
    where = f" with the labels {dict(labels)}" if labels else ""
    found = f"does not fit on the nodes of the Ray cluster: {describe(cluster_nodes())}"
    if not group.size:
        raise UserError(
            f"{purpose} needs {beside} on nodes{where}, and {found}. Lower num_shards, cpus_per_shard or gpus_per_shard"
        )
    others = f" beside {beside}, which Ray spreads over the nodes{where}" if beside.size else ""
    raise UserError(
        f"{purpose} needs {group}{others}, and {found}. Lower train.num_workers, train.cpus_per_worker, "
        "train.gpus_per_worker or data.num_decoders; lower kmeans.num_shards, kmeans.cpus_per_shard or "
        "kmeans.gpus_per_shard, or keep the shards to certain nodes with kmeans.node_labels"
    )


def num_cluster_gpus() -> float:
    """GPUs of the whole cluster, whoever uses them now."""
    return float(ray.cluster_resources().get("GPU", 0.0))


def warn_of_unused_gpus(workers: Group) -> None:
    """Where the cluster has GPUs and no worker gets one."""
    num_gpus = num_cluster_gpus()
    if num_gpus and not workers.bundle.gpus:
        log.warning(
            "the Ray cluster has %g GPUs, and each run trains on the CPU by %d; set train.gpus_per_worker=1, or a "
            "fraction for small trials that share one",
            num_gpus,
            workers.size,
        )


def require_labels(wanted: Mapping[str, str], purpose: str) -> None:
    """Raise UserError where no node carries these labels; what is to run there would wait for ever.

    Args:
        wanted: Ray's label selectors: a value, `in(a,b)`, and with `!` before either the opposite.
    """
    nodes = [node["Labels"] for node in ray.nodes() if node["Alive"]]
    if any(carries(labels, wanted) for labels in nodes):
        return
    own = [{key: value for key, value in labels.items() if key != "ray.io/node-id"} for labels in nodes]
    raise UserError(
        f"{purpose}: no node of the Ray cluster carries the labels {wanted}; its nodes carry {own}. Start nodes with "
        "`ray start --labels KEY=VALUE`, or change the labels asked for"
    )


def carries(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether a node's labels are those asked for, as by `require_labels`."""
    return all(_matches(labels.get(key), value) for key, value in wanted.items())


def _matches(label: str | None, selector: str) -> bool:
    body = selector.removeprefix("!")
    values = body[3:-1].split(",") if body.startswith("in(") and body.endswith(")") else [body]
    return (label in [value.strip() for value in values]) != selector.startswith("!")

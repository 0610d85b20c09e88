"""The files for clusters, against the schemas that Ray ships and the rules of Kubernetes."""

import json
from pathlib import Path

import jsonschema
import ray
import yaml

from tests.conftest import REPOSITORY

CLUSTER = REPOSITORY / "scripts" / "cluster"
LIMIT_OF_NAMES = 63


def documents() -> list[dict]:
    return list(yaml.safe_load_all((CLUSTER / "rayjob.yaml").read_text(encoding="utf-8")))


def pod_specs() -> list[dict]:
    found = []

    def visit(node: object) -> None:
        if isinstance(node, dict):
            if "containers" in node:
                found.append(node)
            for value in node.values():
                visit(value)
        elif isinstance(node, list):
            for value in node:
                visit(value)

    visit(documents())
    return found


def test_the_cluster_launchers_file_follows_rays_schema() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(yaml.safe_load((CLUSTER / "cluster.yaml").read_text(encoding="utf-8")), schema)


def test_the_ray_job_has_what_kuberay_asks_for() -> None:
    kinds = {document["kind"]: document for document in documents()}
    assert set(kinds) == {"PersistentVolumeClaim", "Deployment", "Service", "RayJob"}
    spec = kinds["RayJob"]["spec"]
    assert spec["rayClusterSpec"]["rayVersion"] == ray.__version__
    assert spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert all(len(document["metadata"]["name"]) <= LIMIT_OF_NAMES for document in documents())


def test_every_mount_has_its_volume_and_no_pod_runs_as_root() -> None:
    specs = pod_specs()
    assert len(specs) == 3
    for spec in specs:
        volumes = {volume["name"] for volume in spec["volumes"]}
        mounts = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}
        assert mounts <= volumes
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert all("limits" in container["resources"] for container in spec["containers"])


def test_the_dashboard_of_grafana_asks_for_metrics_that_clray_exports() -> None:
    from clray.sweep.watching import GAUGES

    exported = {f"ray_{name}" for name, _ in GAUGES.values()} | {"ray_clray_trials"}
    dashboard = json.loads((CLUSTER / "grafana.json").read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(asked) == 4
    assert {name for name in exported if any(name in each for each in asked)} == exported

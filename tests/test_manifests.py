"""The files for clusters, against the schemas of Ray and Kubernetes, and the fields that KubeRay documents."""

import json
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml

from tests.conftest import REPOSITORY

CLUSTER = REPOSITORY / "scripts" / "cluster"
LIMIT_OF_NAMES = 63
KUBERNETES = "1.28"
"""The release that KubeRay's reference refers to."""


def record(required: str = "", **properties: dict) -> dict:
    return {
        "type": "object", "properties": properties, "additionalProperties": False, "required": required.split(),
    }  # fmt: skip


TEXT, COUNT, SWITCH = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
POD = {"type": "object", "required": ["spec"]}  # held against the schema of Kubernetes
GROUP = {"template": POD, "rayStartParams": TEXTS}
RAY_JOB = record(
    "entrypoint rayClusterSpec",
    entrypoint=TEXT, runtimeEnvYAML=TEXT, jobId=TEXT, metadata=TEXTS, submissionMode=TEXT, submitterPodTemplate=POD,
    activeDeadlineSeconds=COUNT, backoffLimit=COUNT, ttlSecondsAfterFinished=COUNT, shutdownAfterJobFinishes=SWITCH,
    suspend=SWITCH,
    rayClusterSpec=record(
        "headGroupSpec rayVersion",
        rayVersion=TEXT, suspend=SWITCH, enableInTreeAutoscaling=SWITCH, autoscalerOptions={"type": "object"},
        authOptions=record("mode", mode={"enum": ["token", "disabled"]}),
        headGroupSpec=record("template", enableIngress=SWITCH, serviceType=TEXT, **GROUP),
        workerGroupSpecs={
            "type": "array",
            "items": record(
                "groupName template",
                groupName=TEXT, replicas=COUNT, minReplicas=COUNT, maxReplicas=COUNT, numOfHosts=COUNT,
                idleTimeoutSeconds=COUNT, **GROUP,
            ),
        },
    ),
)  # fmt: skip
"""`spec` of a RayJob, ray.io/v1: the fields of KubeRay's API reference (docs/reference/api.md there) that a sweep could
want; `authOptions` came with KubeRay 1.5.1.
"""


def documents() -> list[dict]:
    return list(yaml.safe_load_all((CLUSTER / "rayjob.yaml").read_text(encoding="utf-8")))


def pods() -> list[dict]:
    """The pods of the Deployment and of the RayJob's head and workers."""
    kinds = {document["kind"]: document["spec"] for document in documents()}
    cluster = kinds["RayJob"]["rayClusterSpec"]
    templates = [
        each["template"] for each in (kinds["Deployment"], cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
    ]
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": each["spec"]} for each in templates
    ]


def test_the_cluster_launchers_file_follows_rays_schema() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(yaml.safe_load((CLUSTER / "cluster.yaml").read_text(encoding="utf-8")), schema)


def test_the_ray_job_has_the_fields_that_kuberay_documents() -> None:
    kinds = {document["kind"]: document for document in documents()}
    assert set(kinds) == {"PersistentVolumeClaim", "Deployment", "Service", "RayJob"}
    spec = kinds["RayJob"]["spec"]
    jsonschema.validate(spec, RAY_JOB)
    assert spec["rayClusterSpec"]["rayVersion"] == ray.__version__
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert all(len(document["metadata"]["name"]) <= LIMIT_OF_NAMES for document in documents())


def test_what_is_kubernetes_own_follows_its_schemas() -> None:
    for document in [*pods(), *(each for each in documents() if each["kind"] != "RayJob")]:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    misspelt = pods()[0]
    misspelt["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="volumeMount"):
        kubernetes_validate.validate(misspelt, KUBERNETES, strict=True)


def test_every_mount_has_its_volume_and_no_pod_runs_as_root() -> None:
    assert len(pods()) == 3
    for spec in (pod["spec"] for pod in pods()):
        volumes = {volume["name"] for volume in spec["volumes"]}
        mounts = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}
        assert mounts <= volumes
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert all("limits" in container["resources"] for container in spec["containers"])


def test_the_dashboard_of_grafana_asks_for_metrics_that_clray_exports() -> None:
    from clray.sweeps.watching import GAUGES

    exported = {f"ray_{name}" for name, _ in GAUGES.values()} | {"ray_clray_trials"}
    dashboard = json.loads((CLUSTER / "grafana.json").read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(asked) == 4
    assert {name for name in exported if any(name in each for each in asked)} == exported

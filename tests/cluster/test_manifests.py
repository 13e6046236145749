"""The files of cluster/: fields that KubeRay knows, names that exist, one image, commands that parse.

No cluster is asked. The fields are those of KubeRay's reference for 1.6 (docs.ray.io, "KubeRay CRD API reference"), of
which only what the files use is here; Kubernetes' own are checked where a slip would go unseen.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from rayclean.cli.commands import app
from rayclean.cluster import metrics

ROOT = Path(__file__).parents[2]
README = (ROOT / "cluster" / "README.md").read_text(encoding="utf-8")
MANIFESTS = sorted(path for path in (ROOT / "cluster").glob("ray*.yaml") if path.name != "ray-up.yaml")
RAY_UP = ROOT / "cluster" / "ray-up.yaml"
RAY = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)

# Field -> type; those in REQUIRED have no default.
RAY_JOB = {
    "entrypoint": str,
    "submissionMode": str,
    "backoffLimit": int,
    "submitterConfig": dict,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "activeDeadlineSeconds": int,
    "preRunningDeadlineSeconds": int,
    "suspend": bool,
    "rayClusterSpec": dict,
}
RAY_CLUSTER = {"rayVersion": str, "authOptions": dict, "headGroupSpec": dict, "workerGroupSpecs": list}
HEAD_GROUP = {"rayStartParams": dict, "template": dict}
WORKER_GROUP = {
    "groupName": str,
    "replicas": int,
    "minReplicas": int,
    "maxReplicas": int,
    "rayStartParams": dict,
    "template": dict,
}
AUTH = {"mode": str, "secretName": str}
POD = {
    "serviceAccountName": str,
    "securityContext": dict,
    "nodeSelector": dict,
    "affinity": dict,
    "tolerations": list,
    "containers": list,
    "volumes": list,
}
CONTAINER = {"name": str, "image": str, "ports": list, "envFrom": list, "resources": dict, "volumeMounts": list}
REQUIRED = ("headGroupSpec", "rayStartParams", "template", "groupName", "minReplicas", "maxReplicas", "name", "image")
SPOT = re.compile("spot", re.IGNORECASE)

each_manifest = pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
each_job = pytest.mark.parametrize(
    "path", [path for path in MANIFESTS if "rayjob" in path.name], ids=lambda path: path.name
)


def documents(path: Path) -> dict[str, dict[str, Any]]:
    """The documents of a file by kind."""
    found = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    assert len({document["kind"] for document in found}) == len(found)
    return {document["kind"]: document for document in found}


def cluster_of(path: Path) -> dict[str, Any]:
    found = documents(path)
    spec: dict[str, Any] = (
        found["RayJob"]["spec"]["rayClusterSpec"] if "RayJob" in found else found["RayCluster"]["spec"]
    )
    return spec


def templates(path: Path) -> dict[str, dict[str, Any]]:
    """Pod templates by the group's name."""
    spec = cluster_of(path)
    groups = {group["groupName"]: group["template"] for group in spec["workerGroupSpecs"]}
    return {"head": spec["headGroupSpec"]["template"], **groups}


def pods(path: Path) -> dict[str, dict[str, Any]]:
    return {name: template["spec"] for name, template in templates(path).items()}


def check_fields(found: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    """All fields are known and of their type, and the required ones are there."""
    for name, value in found.items():
        assert name in known, f"{where}.{name}"
        assert type(value) is known[name], f"{where}.{name}: {value!r}"
    assert [name for name in REQUIRED if name in known and name not in found] == [], where


def test_there_is_something_to_check() -> None:
    assert [path.name for path in MANIFESTS] == ["raycluster.yaml", "rayjob-store.yaml", "rayjob.yaml"]


@each_manifest
def test_fields_are_those_that_kuberay_knows(path: Path) -> None:
    others = {"PersistentVolumeClaim": "v1", "NetworkPolicy": "networking.k8s.io/v1"}
    for kind, document in documents(path).items():
        assert document["apiVersion"] == others.get(kind, "ray.io/v1")
        # KubeRay adds to a RayJob's name and wants a label of DNS.
        assert re.fullmatch("[a-z]([-a-z0-9]{0,45}[a-z0-9])?", document["metadata"]["name"])
    found = documents(path)
    if "RayJob" in found:
        check_fields(found["RayJob"]["spec"], RAY_JOB, "RayJob.spec")
    spec = cluster_of(path)
    check_fields(spec, RAY_CLUSTER, "cluster")
    check_fields(spec["authOptions"], AUTH, "authOptions")
    check_fields(spec["headGroupSpec"], HEAD_GROUP, "headGroupSpec")
    for group in spec["workerGroupSpecs"]:
        check_fields(group, WORKER_GROUP, group["groupName"])
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())  # KubeRay wants text
    for name, pod in pods(path).items():
        check_fields(pod, POD, name)
        for container in pod["containers"]:
            check_fields(container, CONTAINER, name)


@each_job
def test_a_job_that_fails_is_tried_again_on_a_new_cluster(path: Path) -> None:
    job = documents(path)["RayJob"]["spec"]
    assert job["backoffLimit"] > 0  # KubeRay's default is 0: the job ends with its head
    assert job["submitterConfig"]["backoffLimit"] > 0
    # In HTTPMode a job that the head has lost would not be seen as failed.
    assert job["submissionMode"] == "K8sJobMode"
    assert job["shutdownAfterJobFinishes"]
    assert job["ttlSecondsAfterFinished"] > 0  # it needs shutdownAfterJobFinishes


@each_manifest
def test_the_head_has_no_work_and_keeps_off_spot_nodes(path: Path) -> None:
    spec = cluster_of(path)
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    pod = spec["headGroupSpec"]["template"]["spec"]
    required = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = required["nodeSelectorTerms"]  # several would be alternatives
    for rule in term["matchExpressions"]:
        assert rule["operator"] in ("NotIn", "DoesNotExist")
        assert ("values" in rule) == (rule["operator"] == "NotIn")
    assert "tolerations" not in pod
    assert "nodeSelector" not in pod
    kept_off = {rule["key"] for rule in term["matchExpressions"]}
    assert kept_off == {next(iter(selector)) for selector in spot_selectors(path)}


def spot_selectors(path: Path) -> Iterator[dict[str, str]]:
    """What the lines say that a user uncomments to have workers on spot nodes."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if found := re.fullmatch(r" *# nodeSelector: (\{.*\})", line):
            yield yaml.safe_load(found.group(1))


@each_manifest
def test_lines_for_spot_nodes_are_right_when_uncommented(path: Path) -> None:
    selectors = list(spot_selectors(path))
    groups = len(pods(path)) - 1
    assert len(selectors) == groups * len({next(iter(selector)) for selector in selectors}) > 0
    for selector in selectors:
        ((key, value),) = selector.items()
        assert SPOT.search(f"{key}: {value}")
        assert isinstance(value, str)  # an unquoted true is none, and the pod is refused
    for name, pod in pods(path).items():
        if name == "head":
            continue
        for toleration in pod["tolerations"]:
            assert toleration["effect"] == "NoSchedule"
            assert toleration["operator"] in ("Exists", "Equal")
            assert ("value" in toleration) == (toleration["operator"] == "Equal")


@each_manifest
def test_requests_are_limits(path: Path) -> None:
    for name, pod in pods(path).items():
        for container in pod["containers"]:
            resources = container["resources"]
            assert set(resources) == {"limits", "requests"}, name
            assert resources["requests"] == resources["limits"], name
            assert {"cpu", "memory"} <= set(resources["limits"]), name


@each_manifest
def test_every_container_has_the_same_image_and_ray_is_the_pinned_one(path: Path) -> None:
    images = {container["image"] for pod in pods(path).values() for container in pod["containers"]}
    assert len(images) == 1
    assert images == {yaml.safe_load(RAY_UP.read_text())["docker"]["image"]}
    assert f"-t {images.pop()} ." in README
    assert RAY is not None
    assert cluster_of(path)["rayVersion"] == RAY.group(1)


@each_manifest
def test_volumes_secrets_and_config_maps_exist(path: Path) -> None:
    """Names that a pod refers to are those of the file or of a command in the README."""
    found = documents(path)
    claims = {found["PersistentVolumeClaim"]["metadata"]["name"]} if "PersistentVolumeClaim" in found else set()
    secrets = set(re.findall(r"kubectl create secret generic (\S+)", README))
    maps = dict(re.findall(r"kubectl create configmap (\S+) --from-file=(\S+)", README))
    assert cluster_of(path)["authOptions"]["secretName"] in secrets
    assert "--from-literal=auth_token=" in README  # the key that KubeRay reads
    for name, pod in pods(path).items():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert len(volumes) == len(pod["volumes"])
        for volume in volumes.values():
            (kind,) = set(volume) - {"name"}
            if kind == "persistentVolumeClaim":
                assert volume[kind]["claimName"] in claims, name
            else:
                assert kind == "configMap"
                assert volume[kind]["name"] in maps, name
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes), name
            for source in container.get("envFrom", []):
                assert source["secretRef"]["name"] in secrets, name
    if "RayJob" in found:
        config = Path(shlex.split(found["RayJob"]["spec"]["entrypoint"])[2])
        mounted = {mount["mountPath"] for mount in pods(path)["head"]["containers"][0]["volumeMounts"]}
        assert str(config.parent) in mounted
        assert config.name in maps.values()


def test_keys_of_a_store_come_from_a_secret_or_an_account_alone() -> None:
    path = ROOT / "cluster" / "rayjob-store.yaml"
    for pod in pods(path).values():
        for container in pod["containers"]:
            assert container["envFrom"] == [{"secretRef": {"name": "rayclean-store", "optional": True}}]
    assert path.read_text().count("# serviceAccountName: rayclean\n") == len(pods(path))
    assert "PersistentVolumeClaim" not in documents(path)
    assert not re.search("AWS_|ACCESS_KEY|PASSWORD", path.read_text())


@each_manifest
def test_only_the_clusters_own_pods_reach_all_its_ports(path: Path) -> None:
    policy = documents(path)["NetworkPolicy"]["spec"]
    label = policy["podSelector"]["matchLabels"]
    for name, template in templates(path).items():
        assert label.items() <= template["metadata"]["labels"].items(), name  # else nothing is kept from this pod
    assert policy["policyTypes"] == ["Ingress"]
    open_ports = []
    for rule in policy["ingress"]:
        assert rule["from"], "a rule without `from` lets everybody in"
        if "ports" not in rule:
            assert rule["from"] == [{"podSelector": {"matchLabels": label}}]  # in this namespace
        elif rule["from"] == [{"namespaceSelector": {}}]:
            open_ports += [port["port"] for port in rule["ports"]]
        else:
            assert [port["port"] for port in rule["ports"]] == [8265]
            assert all(each["podSelector"]["matchLabels"] for each in rule["from"])
    assert open_ports == [8080]
    submitters = [each for rule in policy["ingress"] for each in rule["from"] if "job-name" in str(each)]
    assert bool(submitters) == ("RayJob" in documents(path))
    assert cluster_of(path)["authOptions"]["mode"] == "token"


@each_manifest
def test_the_metrics_port_is_told_to_prometheus(path: Path) -> None:
    for name, template in templates(path).items():
        (ports,) = [container["ports"] for container in template["spec"]["containers"]]
        by_name = {port["name"]: port["containerPort"] for port in ports}
        annotations = template["metadata"]["annotations"]
        assert all(isinstance(value, str) for value in annotations.values()), name
        assert annotations["prometheus.io/scrape"] == "true"
        assert int(annotations["prometheus.io/port"]) == by_name["metrics"] == 8080
    commands = yaml.safe_load(RAY_UP.read_text())
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert "--metrics-export-port=8080" in commands[key][-1]


def test_metrics_that_the_readme_names_are_those_that_are_shown() -> None:
    table = re.search(r"\n\| metric \|.*?\n\n", README, re.DOTALL)
    assert table is not None
    named = set(re.findall(r"`(rayclean_\w+)`", table.group()))
    assert named == {*metrics.GAUGES, metrics.SAMPLES[0]}
    assert {name.removeprefix("ray_") for name in re.findall(r"ray_rayclean_\w+[a-z]", README)} <= named


def parse(command: str) -> str:
    """Reads a `rayclean` command line as the program would, and does nothing; returns the command's name."""
    program, *arguments = shlex.split(command, comments=True)
    assert program.rpartition("/")[2] == "rayclean"
    group: Any = typer.main.get_command(app)
    with group.make_context("rayclean", arguments) as context:
        name, found, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        with found.make_context(name, rest, parent=context):
            return str(name)


@each_job
def test_the_entrypoint_parses(path: Path) -> None:
    assert parse(documents(path)["RayJob"]["spec"]["entrypoint"]) == "run"


def readme_commands() -> Iterator[str]:
    """Lines of the shell blocks, continued ones joined."""
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL):
        yield from re.sub(r"\\\n\s*", " ", block).splitlines()


def test_the_runbooks_rayclean_commands_parse() -> None:
    found = [re.search(r"(?:^|-- )((?:\S*/)?rayclean .*)", line) for line in readme_commands()]
    names = [parse(match.group(1)) for match in found if match is not None]
    assert {"run", "plan", "doctor", "status", "errors", "show", "gc"} <= set(names)


def test_a_wrong_command_would_be_found() -> None:
    for command in ("rayclean rnu config.yaml", "rayclean run", "rayclean gc --dryrun s3://bucket/run"):
        with pytest.raises(typer.TyperException):
            parse(command)


def test_the_runbook_names_files_and_objects_that_exist() -> None:
    names = {document["metadata"]["name"] for path in MANIFESTS for document in documents(path).values()}
    made = set(re.findall(r"kubectl create (?:secret generic|configmap) (\S+)", README))
    for line in readme_commands():
        for file in re.findall(r"cluster/[\w.-]+", line):
            assert (ROOT / file).is_file(), line
        for kind, name in re.findall(r"kubectl (?:get|delete|patch) (rayjob|secret|configmap) ([a-z-]+)", line):
            assert name in (names if kind == "rayjob" else made), line
        for tool in re.findall(r"^\.venv/bin/(\S+)", line):
            assert tool in ("ray", "rayclean", "uv"), line
    table = set(re.findall(r"^\| `([\w-]+\.yaml)` \|", README, re.MULTILINE))
    assert table == {path.name for path in (*MANIFESTS, RAY_UP)}


def test_failures_are_quoted_as_the_program_words_them() -> None:
    """Each quoted part stands in the source; `...` and braces stand for what differs from run to run."""
    source = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "rayclean").rglob("*.py")))
    quotes = re.findall(r'^\| "([^"]+)" \([12]\)', README, re.MULTILINE)
    assert len(quotes) > 5
    parts = itertools.chain.from_iterable(re.split(r"\{?\.\.\.\}?", quote) for quote in quotes)
    assert [part for part in parts if part not in source] == []

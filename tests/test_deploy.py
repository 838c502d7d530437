"""The files of deploy/ are parsed, and checked against what they speak of; no cluster or builder is here."""

from __future__ import annotations

import copy
import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import tlkit
from tlkit.cli.finetune import finetune
from tlkit.cli.options import chosen_options, split_arguments
from tlkit.config import RunConfig, load_config

from conftest import ROOT

DEPLOY = ROOT / "deploy"
SCHEMAS = ROOT / "tests" / "fixtures" / "deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
INSTRUCTIONS = (
    "ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL ONBUILD RUN SHELL STOPSIGNAL USER VOLUME "
    "WORKDIR"
)
UNITS = {"Mi": 2**20, "Gi": 2**30}


def validate(document: Any, schema: str) -> None:
    """Raise what is wrong with a document."""
    rules = json.loads((SCHEMAS / f"{schema}.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(rules)
    jsonschema.Draft202012Validator(rules).validate(document)


def documents() -> dict[str, dict[str, Any]]:
    """What is in kubernetes.yaml, by kind."""
    found = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8")))
    assert [each["kind"] for each in found] == ["PersistentVolumeClaim", "TFJob", "NetworkPolicy"]
    return {each["kind"]: each for each in found}


def pods() -> dict[str, dict[str, Any]]:
    """The pod specs of the TFJob, by the kind of replica."""
    replicas = documents()["TFJob"]["spec"]["tfReplicaSpecs"]
    return {kind: spec["template"]["spec"] for kind, spec in replicas.items()}


def vertex() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "vertex.yaml").read_text(encoding="utf-8"))


def config_of(arguments: list[str]) -> RunConfig:
    """What `tlkit ARGUMENTS` would train, by its own parser."""
    name, *rest = arguments
    assert name == "finetune"
    with finetune.make_context(name, rest) as context:
        given = context.params
    path, overrides = split_arguments(given["arguments"])
    return load_config(path, overrides, chosen_options(given)).config


def instructions() -> list[tuple[str, str]]:
    """Each instruction of the Dockerfile and what follows it, continued lines joined."""
    lines = [line for line in DOCKERFILE.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines())]


def all_of(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def test_the_kubernetes_manifest_follows_its_schemas() -> None:
    found = documents()
    validate(found["PersistentVolumeClaim"], "persistent_volume_claim")
    validate(found["TFJob"], "tfjob")
    validate(found["NetworkPolicy"], "network_policy")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.tfReplicaSpecs.Chief.replicas", 2),
        ("spec.tfReplicaSpecs.Worker.restartPolicy", "Sometimes"),
        ("spec.tfReplicaSpecs.Evaluater", {}),
        ("spec.tfReplicaSpecs.Worker.template.spec.containers.0.name", "tlkit"),
        ("spec.tfReplicaSpecs.Worker.template.spec.containers.0.image", "tlkit:latest"),
        ("spec.tfReplicaSpecs.Chief.template.spec.containers.0.volumeMount", []),
        ("spec.tfReplicaSpecs.Chief.template.spec.securityContext.runAsUser", 0),
    ],
)
def test_the_schema_of_a_tfjob_refuses(path: str, value: object) -> None:
    job = copy.deepcopy(documents()["TFJob"])
    *parents, last = path.split(".")
    place: Any = job
    for key in parents:
        place = place[int(key)] if key.isdigit() else place[key]
    place[last] = value
    with pytest.raises(jsonschema.ValidationError):
        validate(job, "tfjob")


def test_every_mount_of_a_pod_is_a_volume_and_every_claim_is_made() -> None:
    claim = documents()["PersistentVolumeClaim"]["metadata"]["name"]
    for pod in pods().values():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == set(volumes)
        claims = [volume.get("persistentVolumeClaim") for volume in volumes.values()]
        assert {"claimName": claim} in claims


def test_all_pods_run_one_command_on_one_image() -> None:
    chief, worker = pods()["Chief"], pods()["Worker"]
    assert chief["containers"][0]["args"] == worker["containers"][0]["args"]
    assert chief["containers"][0]["image"] == worker["containers"][0]["image"]


def test_the_data_and_the_run_folder_are_on_the_shared_volume() -> None:
    for pod in pods().values():
        container = pod["containers"][0]
        config = config_of(container["args"])
        shared = next(mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "work")
        assert config.data.source is not None
        assert config.out is not None
        assert Path(config.data.source).is_relative_to(shared)
        assert Path(config.out).is_relative_to(shared)


def test_a_pod_asks_for_no_more_than_it_may_have() -> None:
    for pod in pods().values():
        requests, limits = (pod["containers"][0]["resources"][kind] for kind in ("requests", "limits"))
        assert int(requests["cpu"]) <= int(limits["cpu"])
        assert memory(requests["memory"]) <= memory(limits["memory"])


def memory(amount: str) -> int:
    """Bytes."""
    return int(amount[:-2]) * UNITS[amount[-2:]]


def test_only_the_pods_of_the_job_reach_its_port() -> None:
    job, policy = documents()["TFJob"], documents()["NetworkPolicy"]["spec"]
    label = {"matchLabels": {"training.kubeflow.org/job-name": job["metadata"]["name"]}}
    ports = {port["containerPort"] for pod in pods().values() for port in pod["containers"][0]["ports"]}
    assert policy["podSelector"] == label
    assert policy["ingress"] == [
        {"from": [{"podSelector": label}], "ports": [{"protocol": "TCP", "port": port} for port in ports]}
    ]


def test_the_spec_for_vertex_follows_its_schema() -> None:
    validate(vertex(), "custom_job_spec")


def test_the_schema_for_vertex_refuses_two_chiefs_and_unknown_keys() -> None:
    for index, change in ((0, {"replicaCount": 2}), (0, {"image": "x"}), (1, {"image": "x"})):
        spec = copy.deepcopy(vertex())
        spec["workerPoolSpecs"][index] |= change
        with pytest.raises(jsonschema.ValidationError):
            validate(spec, "custom_job_spec")


def test_the_pools_of_vertex_differ_in_their_number_alone() -> None:
    chief, workers = vertex()["workerPoolSpecs"]
    assert {**chief, "replicaCount": None} == {**workers, "replicaCount": None}


def test_the_run_folder_on_vertex_is_on_a_mount_that_can_rename() -> None:
    pool = vertex()["workerPoolSpecs"][0]
    config = config_of(pool["containerSpec"]["args"])
    mount = f"/mnt/nfs/{pool['nfsMounts'][0]['mountPoint']}"
    assert config.out is not None
    assert config.data.source is not None
    assert Path(config.out).is_relative_to(mount)
    assert config.data.source.startswith("/gcs/")


def test_the_dockerfile_has_known_instructions_and_starts_from_a_fixed_python() -> None:
    assert {name for name, _ in instructions()} <= set(INSTRUCTIONS.split())
    assert instructions()[0][0] == "FROM"
    (image,) = all_of("FROM")
    version = re.fullmatch(r"python:(3\.\d+)-slim-\w+", image)
    assert version is not None, image
    assert f"Programming Language :: Python :: {version[1]}" in PROJECT["project"]["classifiers"]


def test_what_the_image_is_built_from_exists_and_is_sent_to_the_builder() -> None:
    copied = {source for rest in all_of("COPY") for source in shlex.split(rest)[:-1]}
    assert all((ROOT / source).exists() for source in copied)
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == copied


def test_the_image_is_given_all_that_building_the_package_needs() -> None:
    copied = {source for rest in all_of("COPY") for source in shlex.split(rest)[:-1]}
    project, wheel = PROJECT["project"], PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", project["readme"], *project["license-files"], *wheel["packages"]}
    assert needed | set(wheel["force-include"]) <= copied


def test_the_shell_can_read_what_the_image_runs() -> None:
    for command in all_of("RUN"):
        done = subprocess.run(["sh", "-n", "-c", command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_the_image_is_not_run_as_root_and_keeps_its_cache_in_a_volume() -> None:
    (user,) = all_of("USER")
    (volume,) = all_of("VOLUME")
    assert f"--uid {user} " in " ".join(all_of("RUN"))
    assert f"TLKIT_HOME={volume}" in shlex.split(all_of("ENV")[0])
    assert json.loads(all_of("ENTRYPOINT")[0]) == ["tini", "--", "tlkit"]
    for pod in pods().values():
        assert pod["securityContext"]["runAsUser"] == int(user)
        assert volume in [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]]


def test_the_images_are_those_of_this_version() -> None:
    images = [pod["containers"][0]["image"] for pod in pods().values()]
    images += [pool["containerSpec"]["imageUri"] for pool in vertex()["workerPoolSpecs"]]
    images += re.findall(r"-t (\S+)", DOCKERFILE)
    assert {image.rpartition("/")[2] for image in images} == {f"tlkit:{tlkit.__version__}"}

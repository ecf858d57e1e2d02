"""The kustomize overlays: what each engine's servers get, valid for the API server and true to the code."""

import dataclasses
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.config import INDEX_ENGINES, Config
from tests.deploy.kustomize import BASE, OVERLAYS, rendered
from tests.deploy.test_kubernetes import KUBERNETES_VERSIONS, pod_security_violations

KUBECTL = shutil.which("kubectl")
SHARED_ENGINES = [engine for engine in INDEX_ENGINES if engine != "embedded"]
# The port where each listens if nobody says otherwise.
PORTS = {"pgvector": 5432, "milvus": 19530}
NAMES = ["snapshots", *SHARED_ENGINES]
ALL = {name: rendered(OVERLAYS / name) for name in NAMES}


def pod_of(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = ALL[name]["Deployment/fovea"]["spec"]["template"]["spec"]
    return spec


def container_of(name: str) -> dict[str, Any]:
    (only,) = pod_of(name)["containers"]
    assert isinstance(only, dict)
    return only


def environment_of(name: str) -> dict[str, Any]:
    """Variable → its value, or the place in a Secret where it is."""
    return {
        variable["name"]: variable.get("value", variable.get("valueFrom"))
        for variable in container_of(name)["env"]
    }


def config_of(name: str) -> Config:
    """As the server reads it, with a URL where the Secret has one."""
    settings = tomllib.loads(ALL[name]["ConfigMap/fovea-config"]["data"]["fovea.toml"])
    for variable, value in environment_of(name).items():
        known = {f"FOVEA_{setting.name.upper()}": setting.name for setting in dataclasses.fields(Config)}
        settings[known[variable]] = value if isinstance(value, str) else "http://user:password@host"
    return Config(**settings)


def test_every_overlay_is_tested() -> None:
    assert {path.name for path in OVERLAYS.iterdir()} == {*NAMES, "shared"}


@pytest.mark.skipif(KUBECTL is None, reason="no kubectl on the PATH; kustomize itself is a part of it")
@pytest.mark.parametrize("folder", [BASE, *(OVERLAYS / name for name in NAMES)], ids=lambda path: path.name)
def test_kustomize_makes_the_same_of_them(folder: Path) -> None:
    assert KUBECTL is not None
    done = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = {f"{one['kind']}/{one['metadata']['name']}": one for one in yaml.safe_load_all(done.stdout)}
    assert made == rendered(folder)


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("name", NAMES)
def test_resources_are_valid_and_restricted(name: str, version: str) -> None:
    for resource in ALL[name].values():
        kubernetes_validate.validate(resource, version, strict=True)
    assert pod_security_violations(pod_of(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_volumes_meet_their_claims(name: str) -> None:
    pod, container = pod_of(name), container_of(name)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    claims = {
        f"PersistentVolumeClaim/{volume['persistentVolumeClaim']['claimName']}"
        for volume in volumes.values()
        if "persistentVolumeClaim" in volume
    }
    assert claims == {resource for resource in ALL[name] if resource.startswith("PersistentVolumeClaim/")}


def test_snapshots_have_a_volume_of_their_own() -> None:
    mounts = {mount["mountPath"]: mount for mount in container_of("snapshots")["volumeMounts"]}
    config = config_of("snapshots")
    assert config.index_engine == "embedded"
    assert mounts[config.snapshot_path]["name"] not in ("index", "models")
    assert not mounts[config.snapshot_path].get("readOnly")
    assert ALL["snapshots"]["Deployment/fovea"]["spec"]["replicas"] == 1
    assert ALL["snapshots"]["Deployment/fovea"]["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize("engine", SHARED_ENGINES)
def test_servers_of_a_shared_engine_are_several(engine: str) -> None:
    deployment = ALL[engine]["Deployment/fovea"]["spec"]
    assert deployment["replicas"] > 1
    assert deployment["strategy"]["type"] == "RollingUpdate"
    assert config_of(engine).index_engine == engine
    # Nothing is left that only one of them can have.
    claims = [one for name, one in ALL[engine].items() if name.startswith("PersistentVolumeClaim/")]
    assert [claim["spec"]["accessModes"] for claim in claims] == [["ReadWriteMany"]]
    writable = {mount["name"] for mount in container_of(engine)["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"tmp"}


@pytest.mark.parametrize("engine", SHARED_ENGINES)
def test_the_url_comes_from_a_secret_that_is_not_here(engine: str) -> None:
    assert environment_of(engine)["FOVEA_INDEX_URL"] == {
        "secretKeyRef": {"name": "fovea-index-url", "key": "url"}
    }
    assert not [name for name in ALL[engine] if name.startswith("Secret/")]
    readme = (OVERLAYS.parents[1] / "README.md").read_text("utf-8")
    assert "create secret generic fovea-index-url --from-file=url=" in readme


@pytest.mark.parametrize("engine", SHARED_ENGINES)
def test_the_network_lets_the_engine_be_reached(engine: str) -> None:
    policy = ALL[engine]["NetworkPolicy/fovea"]["spec"]
    out = {(port["protocol"], port["port"]) for rule in policy["egress"] for port in rule["ports"]}
    assert out == {("UDP", 53), ("TCP", 53), ("TCP", PORTS[engine])}
    assert policy["ingress"] == ALL["snapshots"]["NetworkPolicy/fovea"]["spec"]["ingress"]


@pytest.mark.parametrize("engine", SHARED_ENGINES)
def test_the_image_has_the_engines_packages(engine: str) -> None:
    root = OVERLAYS.parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    assert container_of(engine)["image"] == f"fovea-serving:{project['version']}-cpu-{engine}"
    readme = (root / "deploy" / "README.md").read_text("utf-8")
    command = rf"--build-arg EXTRAS=serve-cpu,{engine} -t \S+/{re.escape(container_of(engine)['image'])} \."
    assert re.search(command, readme)
    assert engine in project["optional-dependencies"]
    wanted = {
        re.split(r"[\[<>=~ ]", requirement)[0] for requirement in project["optional-dependencies"][engine]
    }
    pinned = (root / "constraints.txt").read_text("utf-8")
    assert all(re.search(rf"^{name}==", pinned, re.MULTILINE) for name in wanted)

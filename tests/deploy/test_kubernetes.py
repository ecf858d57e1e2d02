"""The kustomize base: valid for the API server, restricted, and true to the code that it runs."""

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.config import Config
from service.health import LIVENESS, READY

BASE = Path(__file__).parents[2] / "deploy" / "kubernetes" / "base"
KUBERNETES_VERSIONS = ("1.30", "1.34")


def resources() -> list[dict[str, Any]]:
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text("utf-8"))
    return [
        document
        for name in kustomization["resources"]
        for document in yaml.safe_load_all((BASE / name).read_text("utf-8"))
    ]


RESOURCES = {f"{resource['kind']}/{resource['metadata']['name']}": resource for resource in resources()}


@pytest.fixture(scope="module")
def pod() -> dict[str, Any]:
    spec: dict[str, Any] = RESOURCES["Deployment/fovea"]["spec"]["template"]["spec"]
    return spec


@pytest.fixture(scope="module")
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    assert isinstance(only, dict)
    return only


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return tomllib.loads(RESOURCES["ConfigMap/fovea-config"]["data"]["fovea.toml"])


def test_kustomization_lists_every_file() -> None:
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text("utf-8"))["resources"]
    assert sorted(listed) == sorted({path.name for path in BASE.iterdir()} - {"kustomization.yaml"})


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("name", RESOURCES)
def test_resource_is_valid(name: str, version: str) -> None:
    # An unknown kind or version raises here, where the command line tool only warns.
    kubernetes_validate.validate(RESOURCES[name], version, strict=True)


def test_the_validator_catches_a_slip(container: dict[str, Any]) -> None:
    misspelt = {**RESOURCES["Service/fovea"], "spec": {"clusterIp": "None"}}
    with pytest.raises(kubernetes_validate.ValidationError, match="clusterIp"):
        kubernetes_validate.validate(misspelt, KUBERNETES_VERSIONS[0], strict=True)


def pod_security_violations(pod: dict[str, Any]) -> list[str]:
    """The Pod Security Standards' profile 'restricted', which includes 'baseline', control by control."""
    found = []
    whole = pod.get("securityContext", {})
    found += [field for field in ("hostNetwork", "hostPID", "hostIPC") if pod.get(field)]
    allowed_volumes = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    for volume in pod.get("volumes", []):
        if not set(volume) - {"name"} <= allowed_volumes:
            found.append(f"volume {volume['name']}")
    if whole.get("sysctls"):
        found.append("sysctls")
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        own = container.get("securityContext", {})
        effective = {**whole, **own}
        if effective.get("runAsNonRoot") is not True:
            found.append("runAsNonRoot")
        if effective.get("runAsUser") in (None, 0):
            found.append("runAsUser")
        if effective.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            found.append("seccompProfile")
        if own.get("allowPrivilegeEscalation") is not False:
            found.append("allowPrivilegeEscalation")
        if own.get("privileged"):
            found.append("privileged")
        capabilities = own.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {
            "NET_BIND_SERVICE"
        }:
            found.append("capabilities")
        if any("hostPort" in port for port in container.get("ports", [])):
            found.append("hostPort")
    return found


def test_pod_security_restricted(pod: dict[str, Any], container: dict[str, Any]) -> None:
    assert pod_security_violations(pod) == []
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize(
    ("place", "change", "violation"),
    [
        ("pod", {"securityContext": {}}, "runAsNonRoot"),
        ("pod", {"securityContext": {}}, "seccompProfile"),
        ("pod", {"hostNetwork": True}, "hostNetwork"),
        ("pod", {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}, "volume host"),
        ("container", {"securityContext": {}}, "allowPrivilegeEscalation"),
        ("container", {"securityContext": {}}, "capabilities"),
        ("container", {"ports": [{"containerPort": 1, "hostPort": 1}]}, "hostPort"),
    ],
)
def test_the_pod_security_check_catches(
    place: str, change: dict[str, Any], violation: str, pod: dict[str, Any], container: dict[str, Any]
) -> None:
    broken = {**pod, **change} if place == "pod" else {**pod, "containers": [{**container, **change}]}
    assert violation in pod_security_violations(broken)


def test_probes_ask_the_health_names_of_the_server(container: dict[str, Any]) -> None:
    names = {
        probe: container[f"{probe}Probe"]["grpc"]["service"] for probe in ("startup", "readiness", "liveness")
    }
    assert names == {"startup": READY, "readiness": READY, "liveness": LIVENESS}


def test_ports_are_those_of_the_server(container: dict[str, Any], settings: dict[str, Any]) -> None:
    config = Config(**settings)
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {
        "grpc": config.port,
        "metrics": config.metrics_port,
    }
    probed = {container[f"{probe}Probe"]["grpc"]["port"] for probe in ("startup", "readiness", "liveness")}
    assert probed == {config.port}
    service = RESOURCES["Service/fovea"]["spec"]["ports"]
    assert {(port["name"], port["port"], port["targetPort"]) for port in service} == {
        ("grpc", config.port, "grpc"),
        ("metrics", config.metrics_port, "metrics"),
    }
    assert [port.get("appProtocol") for port in service] == ["kubernetes.io/h2c", None]


def test_every_setting_of_the_configmap_is_one_of_the_server(settings: dict[str, Any]) -> None:
    assert settings.keys() <= {setting.name for setting in dataclasses.fields(Config)}
    Config(**settings)


def test_threads_are_the_cores_asked_for(container: dict[str, Any], settings: dict[str, Any]) -> None:
    cores = int(container["resources"]["requests"]["cpu"])
    assert {settings[f"{kind}_threads"] for kind in ("intra_op", "decode", "search")} == {cores}


def test_memory_limit_is_what_is_asked_for(container: dict[str, Any]) -> None:
    resources = container["resources"]
    assert resources["limits"] == {"memory": resources["requests"]["memory"]}


def test_memory_is_enough_for_the_settings(container: dict[str, Any], settings: dict[str, Any]) -> None:
    """The sum in the ConfigMap, with one model of 224 × 224 and one connection."""
    config = Config(**settings)
    decoding = 16 * max(config.max_decoding_pixels, config.max_image_pixels)
    decoded = config.queue_capacity * 224 * 224 * 3
    arriving = config.max_concurrent_streams * config.max_message_bytes
    the_rest = 500_000_000
    limit = container["resources"]["limits"]["memory"]
    assert limit.endswith("Gi")
    needed = decoding + config.max_queued_bytes + decoded + arriving + the_rest
    assert needed <= int(limit.removesuffix("Gi")) * 2**30
    comment = RESOURCES["ConfigMap/fovea-config"]["data"]["fovea.toml"]
    assert f"{needed / 1e9:.1f} GB\n" in comment


def test_a_drain_ends_before_the_grace_period(pod: dict[str, Any], settings: dict[str, Any]) -> None:
    config = Config(**settings)
    assert pod["terminationGracePeriodSeconds"] >= config.lame_duck_s + config.drain_timeout_s + 5


def test_image_is_tagged_with_the_version(container: dict[str, Any]) -> None:
    project = tomllib.loads((BASE.parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    assert container["image"] == f"fovea-serving:{project['version']}-cpu"


def test_network_lets_in_only_the_two_ports(container: dict[str, Any]) -> None:
    policy = RESOURCES["NetworkPolicy/fovea"]["spec"]
    assert policy["podSelector"] == {"matchLabels": RESOURCES["Service/fovea"]["spec"]["selector"]}
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == []
    let_in = [port["port"] for rule in policy["ingress"] for port in rule["ports"]]
    assert sorted(let_in) == sorted(port["name"] for port in container["ports"])
    assert all(rule["from"] for rule in policy["ingress"])


def test_the_index_has_one_writer(pod: dict[str, Any]) -> None:
    deployment = RESOURCES["Deployment/fovea"]["spec"]
    assert deployment["replicas"] == 1
    assert deployment["strategy"] == {"type": "Recreate"}
    assert RESOURCES["PersistentVolumeClaim/fovea-index"]["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_names_meet(pod: dict[str, Any], container: dict[str, Any]) -> None:
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    assert f"ConfigMap/{volumes['config']['configMap']['name']}" in RESOURCES
    for name in ("models", "index"):
        assert f"PersistentVolumeClaim/{volumes[name]['persistentVolumeClaim']['claimName']}" in RESOURCES
    assert f"ServiceAccount/{pod['serviceAccountName']}" in RESOURCES
    labels = RESOURCES["Deployment/fovea"]["spec"]["template"]["metadata"]["labels"].items()
    assert RESOURCES["Deployment/fovea"]["spec"]["selector"]["matchLabels"].items() <= labels
    assert RESOURCES["Service/fovea"]["spec"]["selector"].items() <= labels
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    (config_file,) = RESOURCES["ConfigMap/fovea-config"]["data"]
    assert container["args"] == ["--config", f"{mounts['config']}/{config_file}"]


def test_only_what_is_written_can_be_written(container: dict[str, Any]) -> None:
    writable = {mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"index", "tmp"}


def test_nothing_of_kubernetes_reaches_the_server(pod: dict[str, Any]) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert RESOURCES["ServiceAccount/fovea"]["automountServiceAccountToken"] is False
    # FOVEA_PORT of a Service's link would be read as the server's setting.
    assert pod["enableServiceLinks"] is False

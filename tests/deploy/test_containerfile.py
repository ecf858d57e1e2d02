"""The serving image: linted, without torch or root, and true to the code that it runs."""

import dataclasses
import re
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import yaml

from service.config import Config

ROOT = Path(__file__).parents[2]
CONTAINERFILE = ROOT / "deploy" / "images" / "Containerfile.cpu"
HADOLINT = Path(sysconfig.get_path("scripts")) / "hadolint"


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments), continued lines joined, comments left out."""
    text = re.sub(r"^\s*#.*\n", "", CONTAINERFILE.read_text("utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


ALL = instructions()
LAST_FROM = max(at for at, (instruction, _) in enumerate(ALL) if instruction == "FROM")
BUILD, RUNTIME = ALL[:LAST_FROM], ALL[LAST_FROM:]


def arguments(name: str) -> list[str]:
    return [text for instruction, text in RUNTIME if instruction == name]


def environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for text in arguments("ENV") for pair in text.split())


def test_hadolint() -> None:
    command: list[str | Path] = [HADOLINT, "--failure-threshold=style", CONTAINERFILE]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "")


def test_both_stages_start_from_the_same_pinned_python() -> None:
    bases = {text.split()[0] for instruction, text in ALL if instruction == "FROM"}
    assert len(bases) == 1
    assert re.fullmatch(r"docker\.io/library/python:3\.\d+\.\d+-slim-\w+", bases.pop())


def test_only_the_environment_is_copied_to_the_runtime() -> None:
    assert arguments("COPY") == ["--from=build /opt/fovea /opt/fovea"]
    (run,) = arguments("RUN")
    assert "install" not in run.replace("uninstall", "")
    (uninstall,) = [step.split() for step in run.split("&&") if "pip uninstall" in step]
    assert {"pip", "setuptools", "wheel"} <= set(uninstall)


def test_torch_stays_out() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    installed = {extra for _, text in BUILD for extra in re.findall(r"\}\[([^\]]+)\]", text)}
    assert installed == {"${EXTRAS}"}
    assert [text for instruction, text in BUILD if instruction == "ARG"] == ["EXTRAS=serve-cpu"]
    wanted = [*extras["serve-cpu"], *extras["server"], *extras["pgvector"], *extras["milvus"]]
    names = {re.split(r"[\[<>=~ ]", requirement)[0] for requirement in wanted}
    assert "onnxruntime" in names
    assert not names & {"torch", "onnx", "onnxscript", "scikit-learn", "onnxruntime-gpu"}


def test_versions_are_those_of_the_constraints() -> None:
    installs = [text for _, text in BUILD if "pip" in text and " install " in text]
    assert len(installs) == 1
    assert "--constraint constraints.txt" in installs[0]


def test_runs_as_a_numeric_user_that_is_not_root() -> None:
    (user,) = arguments("USER")
    uid, gid = user.split(":")
    assert int(uid) > 0
    deployment = yaml.safe_load((ROOT / "deploy/kubernetes/base/deployment.yaml").read_text("utf-8"))
    pod = deployment["spec"]["template"]["spec"]
    context = pod["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == (int(uid), int(gid))
    # The group that volumes belong to: the index is writable because the process is in it.
    assert context["fsGroup"] == int(gid)
    (run,) = arguments("RUN")
    assert f"chown {user} {environment()['FOVEA_INDEX_PATH']}" in run


def test_volumes_are_mounted_where_the_server_looks() -> None:
    deployment = yaml.safe_load((ROOT / "deploy/kubernetes/base/deployment.yaml").read_text("utf-8"))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert "env" not in container
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts["models"] == environment()["FOVEA_MODEL_REPOSITORY"]
    assert mounts["index"] == environment()["FOVEA_INDEX_PATH"]
    (run,) = arguments("RUN")
    assert f"mkdir {mounts['models']} {mounts['index']}" in run


def test_freed_bodies_go_back_to_the_system() -> None:
    assert int(environment()["MALLOC_MMAP_THRESHOLD_"]) <= 1024 * 1024


def test_starts_the_server_on_its_ports() -> None:
    assert arguments("ENTRYPOINT") == ['["fovea", "serve"]']
    config = Config()
    assert arguments("EXPOSE") == [f"{config.port} {config.metrics_port}"]
    assert arguments("HEALTHCHECK") == []


def test_environment_sets_real_settings() -> None:
    settings = {name for name in environment() if name.startswith("FOVEA_")}
    assert settings <= {f"FOVEA_{setting.name.upper()}" for setting in dataclasses.fields(Config)}
    assert environment()["FOVEA_HOST"] == "0.0.0.0"  # noqa: S104 - inside the container's own network


def test_nothing_that_old_builders_lack() -> None:
    text = CONTAINERFILE.read_text("utf-8")
    assert "<<" not in text
    assert "--link" not in text


def test_what_is_copied_is_let_into_the_context() -> None:
    let_in = {
        line[1:] for line in (ROOT / ".containerignore").read_text("utf-8").splitlines() if line[:1] == "!"
    }
    copied = {source for instruction, text in BUILD if instruction == "COPY" for source in text.split()[:-1]}
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)

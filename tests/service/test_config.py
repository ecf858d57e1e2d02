"""Settings of all models and of one: limits, names, and the ways they come in."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from service.cli.serve import serve
from service.config import MODEL_SETTINGS, Config
from service.errors import ConfigError
from service.model_settings import ModelSettings


def test_a_model_has_the_servers_settings_and_its_own() -> None:
    config = Config(
        max_batch_size=16,
        precision="fp32",
        model_settings=("digits.precision=int8", "digits.devices=1,3", "v1.2-large.cuda_graphs=true"),
    )
    assert config.for_model("other") == ModelSettings(max_batch_size=16, precision="fp32")
    assert config.for_model("digits") == ModelSettings(max_batch_size=16, precision="int8", devices=(1, 3))
    assert config.for_model("v1.2-large").cuda_graphs is True  # a name with a dot


def test_of_one_that_is_given_twice_the_last_counts() -> None:
    config = Config(model_settings=("a.instances=2", "a.instances=3"))
    assert config.for_model("a").instances == 3


@pytest.mark.parametrize("name", MODEL_SETTINGS)
def test_every_model_setting_can_be_one_models_own(name: str) -> None:
    text: dict[str, tuple[str, Any]] = {
        "execution_provider": ("openvino", "openvino"), "precision": ("bf16", "bf16"),
        "compile_cache": ("", ""), "devices": ("2", (2,)), "gpu_mem_limit_bytes": ("1024", 1024),
        "cuda_graphs": ("yes", True), "prefer_nhwc": ("On", True), "max_batch_size": ("3", 3),
        "max_queue_delay_ms": ("0.5", 0.5), "instances": ("2", 2), "intra_op_threads": ("4", 4),
        "default_timeout_ms": ("250", 250.0),
    }  # fmt: skip
    given, expected = text[name]
    assert getattr(Config(model_settings=(f"m.{name}={given}",)).for_model("m"), name) == expected


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("digits.precision", "'digits.precision'; expected NAME.SETTING=VALUE"),
        ("precision=int8", "'precision=int8'; expected NAME.SETTING=VALUE"),
        (".precision=int8", "expected NAME.SETTING=VALUE"),
        ("digits.precison=int8", "unknown setting 'precison'; known are execution_provider, precision"),
        ("digits.port=1", "unknown setting 'port'; known are"),
        ("digits.precision=int7", "'digits': precision is 'int7'; expected one of auto, fp32, bf16"),
        ("digits.execution_provider=gpu", "execution_provider is 'gpu'; expected one of auto, tensorrt"),
        ("digits.instances=two", "instances is 'two'; expected a whole number"),
        ("digits.instances=0", "'digits': instances is 0; expected 1 to 64"),
        ("digits.max_queue_delay_ms=soon", "max_queue_delay_ms is 'soon'; expected a number"),
        ("digits.max_queue_delay_ms=nan", "max_queue_delay_ms is nan; expected 0 to 10000"),
        ("digits.devices=0;1", "devices is '0;1'; expected whole numbers separated by commas"),
        ("digits.devices=-1", "devices is -1; expected 0 to 255"),
        ("digits.devices=1,1", "devices is 1,1; expected each number once"),
        ("digits.cuda_graphs=maybe", "cuda_graphs is 'maybe'; expected true or false"),
        ("digits.max_batch_size=1024", r"2 × max_batch_size of model 'digits' = 2048"),
    ],
)
def test_what_cannot_be_used_is_named(entry: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(model_settings=(entry,))
    assert words in str(caught.value)


def test_models_that_are_not_there_are_refused() -> None:
    config = Config(model_settings=("digit.precision=int8",))
    config.check_models(["digit"])
    with pytest.raises(ConfigError, match="names model 'digit'; the repository has colors, digits"):
        config.check_models(["digits", "colors"])


def parsed(*arguments: str, environment: dict[str, str] | None = None) -> Config:
    """What the command line makes of its arguments, without a server."""
    found: list[Config] = []

    @click.command(params=serve.params)
    def stop_there(**settings: Any) -> None:
        found.append(Config(**settings))

    result = CliRunner().invoke(stop_there, arguments, env=environment, catch_exceptions=False)
    if not found:
        raise ConfigError(result.output)
    return found[0]


def test_the_command_line_beats_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "fovea.toml"
    file.write_text(
        'precision = "fp32"\nmax_batch_size = 4\ndevices = [0, 1]\ncuda_graphs = true\n'
        '[model.a]\nprecision = "int8"\ninstances = 2\nmax_batch_size = 5\n'
        '[model."b.c"]\ndevices = [2, 3]\nprefer_nhwc = true\ncompile_cache = ""\n'
    )
    environment = {"FOVEA_MODEL_SETTINGS": "a.instances=3 a.max_batch_size=6", "FOVEA_PRECISION": "auto"}
    config = parsed(
        "--config", str(file), "--model-setting", "a.max_batch_size=7", "--max-queue-delay-ms", "1",
        environment=environment,
    )  # fmt: skip
    ours: dict[str, Any] = {
        "max_batch_size": 4,
        "devices": (0, 1),
        "cuda_graphs": True,
        "max_queue_delay_ms": 1.0,
    }
    assert config.for_model("x") == ModelSettings(**ours)
    assert config.for_model("a") == ModelSettings(
        **{**ours, "precision": "int8", "instances": 3, "max_batch_size": 7}
    )
    assert config.for_model("b.c") == ModelSettings(
        **{**ours, "devices": (2, 3), "prefer_nhwc": True, "compile_cache": ""}
    )


def test_global_settings_from_the_command_line() -> None:
    config = parsed("--devices", "1,2", "--cuda-graphs", "--execution-provider", "openvino")
    assert (config.devices, config.cuda_graphs, config.execution_provider) == ((1, 2), True, "openvino")
    config = parsed("--no-cuda-graphs", environment={"FOVEA_CUDA_GRAPHS": "true", "FOVEA_DEVICES": "7"})
    assert (config.devices, config.cuda_graphs) == ((7,), False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[model.a]\nprecison = 'int8'\n", "unknown setting precison; known are"),
        ("[model]\na = 3\n", "expected tables [model.NAME] of settings"),
        ("model = 'a'\n", "expected tables [model.NAME] of settings"),
        ("devices = 'first'\n", "expected whole numbers separated by commas"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "fovea.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        parsed("--config", str(file))
    assert words in " ".join(str(caught.value).split())


def test_the_server_refuses_settings_of_a_model_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "digits" / "1").mkdir(parents=True)
    (tmp_path / "digits" / "1" / "manifest.json").write_text(json.dumps({}))
    result = subprocess.run(
        [sys.executable, "-m", "service", "serve", "--model-repository", str(tmp_path),
         "--log-format", "json", "--port", "0", "--metrics-port", "0",
         "--index-path", str(tmp_path / "index"), "--model-setting", "digit.precision=int8"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "model_settings names model 'digit'; the repository has digits" in result.stderr


def test_settings_of_retrieval_from_everywhere(tmp_path: Path) -> None:
    config = parsed()
    assert (config.index_engine, config.index_url, config.snapshot_path, config.image_roots) == (
        "embedded",
        "",
        "",
        (),
    )
    file = tmp_path / "fovea.toml"
    file.write_text(
        'index_engine = "pgvector"\nsnapshot_path = "/var/snapshots"\nimage_roots = ["/a b", "/c"]\n'
    )
    url = "postgresql://somebody:secret@host/name"
    config = parsed("--config", str(file), environment={"FOVEA_INDEX_URL": url})
    assert (config.index_engine, config.index_url) == ("pgvector", url)
    assert (config.snapshot_path, config.image_roots) == ("/var/snapshots", ("/a b", "/c"))
    assert parsed("--image-root", "/a b", "--image-root", "/c").image_roots == ("/a b", "/c")
    assert parsed(environment={"FOVEA_IMAGE_ROOTS": "/a /c"}).image_roots == ("/a", "/c")
    with pytest.raises(ConfigError, match="faiss"):
        parsed("--index-engine", "faiss")


def test_decoding_threads_that_would_not_decode_are_refused() -> None:
    with pytest.raises(ConfigError, match="decode_threads is 2 and decoding is 'inference'; expected one"):
        Config(decoding="inference", decode_threads=2)

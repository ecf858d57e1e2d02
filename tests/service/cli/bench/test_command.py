"""fovea bench as a person uses it, against a real server."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fovea
import pytest
from PIL import Image

from tests.packages import write_colors
from tests.servers import ServerProcess
from tests.service.cli.conftest import Fovea

BRIEF = ("--duration-s", "1", "--warm-up-s", "0.05")
PERCENTILES = {"p50", "p90", "p99", "p999"}


@pytest.fixture(scope="module")
def collection(server: ServerProcess) -> Iterator[str]:
    """A collection of the colors model's vectors; the server is other tests' too."""
    with fovea.Client(server.address) as client:
        client.create_collection("bench", model="colors")
        yield "bench"
        client.drop_collection("bench")


def document(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return loaded


def test_a_closed_loop_and_all_its_outputs(fovea_command: Fovea, pictures: Path) -> None:
    done = fovea_command(
        "bench", "--callers", "4", "--images", "red.png", "green.png", "blue.png", "--deadline-ms", "5000",
        "--output", "run.json", "--plot", "run.png", *BRIEF,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    run = document(pictures / "run.json")
    assert run["ok"] > 0
    assert run["goodput"] == pytest.approx(run["ok"])
    assert run["throughput"] == pytest.approx(run["answered"])
    assert run["latency_ms"].keys() >= PERCENTILES
    assert 0 < run["latency_ms"]["p50"] <= run["latency_ms"]["p90"] <= run["latency_ms"]["p999"]
    assert (run["shed"], run["errors"], run["not_sent"]) == (0, 0, 0)
    assert run["server"] == {
        "model": "colors", "version": "1", "execution_provider": "cpu", "precision": "fp32",
        "max_batch_size": 8,
    }  # fmt: skip
    assert run["parameters"]["callers"] == 4
    assert run["parameters"]["messages"] == 3
    assert run["machine"]["libraries"]["grpcio"]
    assert sum(step["ok"] for step in run["timeline"]) == run["ok"]
    assert f"{run['throughput']:.1f}" in done.stdout
    with Image.open(pictures / "run.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 800
        assert len(picture.convert("RGB").getcolors(2**24) or ()) > 20  # something is drawn


@pytest.mark.parametrize("arrivals", ["poisson", "constant", "bursty", "ramp"])
def test_an_open_loop_ends_every_call_in_one_way(fovea_command: Fovea, pictures: Path, arrivals: str) -> None:
    more = ("--ramp-to", "200") if arrivals == "ramp" else ()
    done = fovea_command(
        "bench", "--rate", "100", "--arrivals", arrivals, "--burst-on-s", "0.1", "--burst-off-s", "0.05",
        *more, "--images", "red.png", "--deadline-ms", "2000", "--seed", "3", "--output", "run.json", *BRIEF,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    run = document(pictures / "run.json")
    kinds = ("ok", "late", "shed", "errors", "not_sent")
    assert run["offered"] == sum(run[kind] for kind in kinds) > 0
    assert run["generator"]["send_lag_ms"]["p99"] is not None
    assert run["parameters"]["arrivals"] == arrivals


@pytest.mark.parametrize("method", ["classify", "embed", "classify-stream", "embed-stream"])
@pytest.mark.parametrize("raw", [(), ("--raw", "8x8")], ids=["files", "raw"])
def test_methods_that_take_images(
    fovea_command: Fovea, pictures: Path, method: str, raw: tuple[str, ...]
) -> None:
    done = fovea_command(
        "bench", "--callers", "2", "--method", method, "--images", "red.png", "green.png", *raw,
        "--images-per-request", "3", "--output", "run.json", *BRIEF,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    run = document(pictures / "run.json")
    who = "2 streams with 16 messages under way," if method.endswith("-stream") else "2 callers"
    assert run["parameters"]["load"] == f"{who} in a closed loop"
    assert run["ok"] == run["answered"] > 0
    assert run["errors"] == 0
    assert run["images_per_s"] == pytest.approx(3 * run["throughput"])


@pytest.mark.parametrize(
    "method",
    ["upsert", "search", "upsert-vectors", "search-vectors", "get", "count", "get-collection", "delete"],
)
def test_methods_of_a_collection(fovea_command: Fovea, pictures: Path, collection: str, method: str) -> None:
    images = ("--images", "red.png", "blue.png") if method in ("upsert", "search") else ()
    done = fovea_command(
        "bench", "--callers", "2", "--method", method, "--collection", collection, *images, "--output",
        "run.json", "--images-per-request", "2", *BRIEF,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    run = document(pictures / "run.json")
    assert run["ok"] > 0
    assert run["errors"] == 0
    assert run["server"]["collection"] == "bench"


@pytest.mark.parametrize("method", ["list-models", "get-model", "list-collections"])
def test_methods_that_carry_nothing(fovea_command: Fovea, tmp_path: Path, method: str) -> None:
    output = tmp_path / "run.json"
    done = fovea_command("bench", "--callers", "2", "--method", method, "--output", output, *BRIEF)
    assert done.exit_code == 0, done.output
    assert document(output)["ok"] > 0


def test_broken_images_are_errors_and_no_answer_is_a_failure(fovea_command: Fovea, pictures: Path) -> None:
    done = fovea_command("bench", "--callers", "1", "--images", "broken.jpg", "--output", "run.json", *BRIEF)
    assert done.exit_code == 1
    assert "no call was answered" in done.stderr
    assert "INVALID_ARGUMENT: " in done.stdout
    run = document(pictures / "run.json")
    assert run["errors"] == run["errors_by_code"]["INVALID_ARGUMENT"] > 0
    assert (run["ok"], run["goodput"], run["latency_ms"]["p99"]) == (0, 0, None)
    assert "broken" in run["error_examples"]["INVALID_ARGUMENT"]


def test_the_floor_is_compared_in_turns(fovea_command: Fovea, pictures: Path) -> None:
    write_colors(pictures / "models")
    done = fovea_command(
        "bench", "--callers", "2", "--images", "red.png", "--compare", "floor", "--model-repository",
        "models", "--rounds", "2", "--output", "run.json", "--plot", "run.png", *BRIEF,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    run = document(pictures / "run.json")
    assert done.stdout.startswith(f"ratio {run['ratio']:.3f}: ")
    assert next(iter(run)) == "ratio"
    assert len(run["floor"]["rounds_images_per_s"]) == len(run["rounds"]) == 2
    assert min(run["floor"]["rounds_images_per_s"]) > 0
    assert run["floor"]["batch_size"] == 2
    assert run["floor"]["batch_ms"]["p50"] > 0
    ratios = [
        served["throughput"] / floor
        for served, floor in zip(run["rounds"], run["floor"]["rounds_images_per_s"], strict=True)
    ]
    assert run["ratio"] == pytest.approx(sum(ratios) / 2)


def test_the_floor_has_to_be_of_the_same_package(fovea_command: Fovea, pictures: Path) -> None:
    arguments = ("bench", "--callers", "1", "--images", "red.png", "--compare", "floor", *BRIEF)
    done = fovea_command(*arguments, "--model-repository", ".")
    assert done.exit_code == 1
    assert "has no colors/1, which is what the server runs" in done.stderr
    write_colors(pictures / "models", temperature=2.0)
    done = fovea_command(*arguments, "--model-repository", "models")
    assert done.exit_code == 1
    assert "is another package than the server's" in done.stderr
    (pictures / "models" / "colors" / "1" / "model.onnx").write_bytes(b"broken")
    done = fovea_command(*arguments, "--model-repository", "models")
    assert done.exit_code == 1
    assert "the floor can't run: " in done.stderr
    assert "sha256" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "either --callers N (closed loop) or --rate CALLS/S (open loop)"),
        (("--callers", "1", "--rate", "2"), "either --callers N (closed loop) or"),
        (("--callers", "1", "--arrivals", "bursty"), "is for an open loop; give --rate"),
        (("--rate", "1", "--arrivals", "ramp"), "a ramp needs both"),
        (("--rate", "1", "--ramp-to", "5"), "a ramp needs both"),
        (("--rate", "nan"), "not a finite number"),
        (("--rate", "0"), "--rate"),
        (("--callers", "1", "--never-cancel"), "--never-cancel needs --deadline-ms"),
        (("--callers", "1"), "sends images; name them with --images"),
        (("--callers", "1", "--method", "count", "--images", "red.png"), "sends no images"),
        (("--callers", "1", "--method", "search", "--images", "red.png"), "name it with --collection"),
        (("--callers", "1", "--images", "red.png", "--compare", "floor"), "needs --model-repository"),
        (
            ("--callers", "1", "--method", "list-models", "--compare", "floor", "--model-repository", "."),
            "is for classify and embed",
        ),
        (("--callers", "1", "--images", "red.png", "--raw", "224"), "expected HEIGHTxWIDTH"),
        (("--callers", "1", "--images", "red.png", "--raw", "0x4"), "expected HEIGHTxWIDTH"),
        (("--callers", "1", "--images", "red.png", "--floor-cores", "all"), "names no cores"),
        (("--callers", "1", "--images", "red.png", "--floor-cores", "1-0"), "names no cores"),
        (("--callers", "1", "--images", "red.png", "--floor-cores", "0-"), "names no cores"),
        (("--callers", "1", "--images", "red.png", "--floor-cores", "0-9999999999"), "this command may use"),
        (("--callers", "1", "--images", "red.png", "--output", "absent/run.json"), "no folder absent"),
        (("--callers", "1", "--images", "red.png", "--plot", "absent/run.png"), "no folder absent"),
        (("--callers", "1", "--images", "absent"), "does not exist"),
    ],
)
def test_what_makes_no_run_is_said(
    fovea_command: Fovea, pictures: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    done = fovea_command("bench", *arguments)
    assert done.exit_code == 2
    assert complaint in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--images", "red.png", "--address", "192.0.2.1:50051"), "only with --allow-remote"),
        (("--images", "red.png", "--address", "127.0.0.1:1"), "no Fovea server is ready at 127.0.0.1:1"),
        (("--images", "red.png", "--model", "absent"), "colors"),
        (("--images", ".", "--raw", "8x8"), "broken.jpg: "),
        (("--method", "count", "--collection", "absent"), "fovea index add FOLDER --collection absent"),
    ],
)  # fmt: skip
def test_what_is_not_there_ends_the_run_at_once(
    fovea_command: Fovea, pictures: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    done = fovea_command("bench", "--callers", "1", *arguments)
    assert done.exit_code == 1
    assert complaint in done.stderr
    assert done.stdout == ""


def test_images_need_a_collection_with_a_model(
    fovea_command: Fovea, pictures: Path, server: ServerProcess
) -> None:
    with fovea.Client(server.address) as client:
        client.create_collection("bench-external", dimension=4)
        try:
            arguments = ("--callers", "1", "--collection", "bench-external", *BRIEF)
            done = fovea_command("bench", "--method", "search", "--images", "red.png", *arguments)
            assert done.exit_code == 1
            assert "use --method search-vectors" in done.stderr
            assert fovea_command("bench", "--method", "upsert-vectors", *arguments).exit_code == 0
        finally:
            client.drop_collection("bench-external")


def test_a_run_in_which_no_call_was_due_says_so(fovea_command: Fovea, pictures: Path) -> None:
    done = fovea_command("bench", "--rate", "0.001", "--images", "red.png", *BRIEF)
    assert done.exit_code == 1
    assert "no call was due" in done.stderr
    assert "Warning" not in done.stdout  # nor is the generator blamed


def test_without_the_extra_it_says_what_to_install(pictures: Path) -> None:
    program = (
        "import sys; sys.modules['hdrh'] = None; from service.cli import main; "
        "main(['bench', '--callers', '1', '--images', 'red.png'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "isn't installed; pip install 'fovea-serving[bench]' brings it" in done.stderr


def test_other_commands_load_none_of_it() -> None:
    program = (
        "import sys; import service.cli; "
        "loaded = {name.split('.')[0] for name in sys.modules}; "
        "print(sorted(loaded & {'hdrh', 'matplotlib', 'uvloop', 'PIL'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

"""The import rule of ARCHITECTURE.md: only downward, and each library in its own rooms."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Modules and packages of service/. Each may import those of the lines below its own, and itself.
LAYERS = (
    {"__main__"},
    {"cli"},
    {"server"},
    {"servicers"},
    {"interceptors", "health"},
    {"gallery"},
    {"pipeline"},
    {"repository", "retrieval"},
    {"model"},
    {"admission", "batching", "decoding", "session", "image", "postprocess"},
    {"entry_queue", "forecast", "variants"},
    {"group", "latency"},
    {
        "providers",
        "workers",
        "arrivals",
        "loop_lag",
        "budget",
        "encoded",
        "preprocess",
        "compile_cache",
        "threads",
    },
    {"config", "metrics", "logs", "engines", "manifest"},
    {"model_settings"},
    {"setting", "agreement"},
    {"errors", "processor", "http2"},
    {"__init__"},
)
DEPTH = {room: depth for depth, layer in enumerate(LAYERS) for room in layer}

# Inside service/: library → the rooms, or modules in them, that may import it. The longest prefix that fits
# decides. The load generator makes its calls itself: a client's typed values would cost more than the server.
GRPC_LAYER = {"server", "servicers", "interceptors", "health", "http2", "cli.bench"}
LIBRARIES = {
    # pymilvus raises grpc's errors.
    "grpc": GRPC_LAYER | {"retrieval.milvus"},
    "grpc_health": GRPC_LAYER,
    "grpc_reflection": GRPC_LAYER,
    "fovea": {"cli"},
    "fovea.v1": {"server", "servicers", "cli.bench"},
    "hpack": {"http2"},
    "onnxruntime": {"engines", "providers", "cli.import_model"},
    # Frames that are too large to be sent as they are go as JPEG.
    "PIL": {"image", "preprocess", "cli.clip_mean", "cli.quality"},
    # Of the extra `video`.
    "av": {"cli.clips"},
    "prometheus_client": {"metrics"},
    "faiss": {"retrieval"},
    "sqlite3": {"retrieval"},
    # Of the extra `pgvector`.
    "psycopg": {"retrieval.pgvector"},
    "psycopg_pool": {"retrieval.pgvector"},
    # Of the extra `milvus`.
    "pymilvus": {"retrieval.milvus"},
    "pyarrow": {"retrieval", "cli.bulk"},
    # Of the extra `ray`.
    "ray": {"cli.bulk"},
    "hdrh": {"cli.bench"},
    "matplotlib": {"cli.bench"},
    # Of the extra `import`; only import-model writes graphs.
    "onnx": {"cli.import_model"},
    # The serving image has none of these.
    "training": set(),
    "torch": set(),
    "torchvision": set(),
    "timm": set(),
    "sklearn": set(),
}
# What training/ shares with service/: the decoder and the preprocessing, and the errors they raise.
SHARED = ("service.image", "service.preprocess", "service.errors")
# What comes with fovea-client into a caller's environment.
CLIENT_LIBRARIES = {"fovea", "grpc", "google", "numpy"}
# The adapters' libraries are extras, and the CPU build of torch can't import them; PyAV is one too.
ONLY_INSIDE_FUNCTIONS = {"torchvision", "timm", "av"}


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def imports(module: str, tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Every import anywhere in the file, as (node, a.b.c); `from a.b import c` is a.b.c too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node, f"{base}.{alias.name}"
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in {"importlib.import_module", "import_module", "__import__"}
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node, str(node.args[0].value)


def not_run_on_import(tree: ast.Module) -> set[ast.AST]:
    """What stands inside functions, or is there for type checkers only."""
    blocks = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    )
    return {inner for block in blocks for inner in ast.walk(block)}


def violations(module: str, source: str) -> list[str]:
    """What the file `module` (service.cli.serve) imports against the rule, one sentence each."""
    tree = ast.parse(source)
    lazy = not_run_on_import(tree)
    package, *rest = module.split(".")
    found = []
    if package == "service" and rest and rest[0] not in DEPTH:
        found.append(f"{module} has no layer; give service.{rest[0]} its place in LAYERS and ARCHITECTURE.md")
    for node, name in imports(module, tree):
        top = name.split(".")[0]
        complaint = ""
        if package == "service" and rest:
            complaint = _against_service(".".join(rest), name)
        elif package == "training":
            if top == "service" and not any(within(name, shared) for shared in SHARED):
                complaint = f"training may import of service only {', '.join(SHARED)}"
            elif top == "fovea" and rest[:1] != ["evaluate"]:
                complaint = "only training.evaluate may use the client"
        elif package == "fovea" and top not in CLIENT_LIBRARIES and top not in sys.stdlib_module_names:
            complaint = f"the client has only {', '.join(sorted(CLIENT_LIBRARIES))} and the standard library"
        if top in ONLY_INSIDE_FUNCTIONS and node not in lazy:
            complaint = f"{top} is imported inside functions only"
        if complaint:
            found.append(f"{module} imports {name}: {complaint}")
    return found


def _against_service(inside: str, name: str) -> str:
    room = inside.split(".")[0]
    if within(name, "service"):
        target = [*name.split("."), ""][1]
        if target == room or room not in DEPTH or DEPTH.get(target, -1) > DEPTH[room]:
            return ""
        below = sorted(other for other in DEPTH if DEPTH[other] > DEPTH[room])
        return f"{room} may import {', '.join(below)}"
    fitting = [library for library in LIBRARIES if within(name, library)]
    if not fitting:
        return ""
    library = max(fitting, key=len)
    rooms = LIBRARIES[library]
    if any(within(inside, allowed) for allowed in rooms):
        return ""
    return f"in service {library} belongs to {', '.join(sorted(rooms)) or 'nobody'}"


def source_files() -> dict[str, Path]:
    """Module name → file, of everything that is written by hand."""
    files = {}
    for package, base in (("service", ROOT), ("training", ROOT), ("fovea", ROOT / "client")):
        for path in sorted((base / package).rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            if parts[:2] == ("fovea", "v1"):
                continue
            files[".".join(parts)] = path
    return files


FILES = source_files()


@pytest.mark.parametrize("module", FILES)
def test_imports_go_downward(module: str) -> None:
    assert violations(module, FILES[module].read_text("utf-8")) == []


def test_every_distribution_is_looked_at() -> None:
    assert {module.split(".")[0] for module in FILES} == {"service", "training", "fovea"}
    assert {"service.image", "service.cli.__init__", "training.cli", "fovea.client"} <= set(FILES)


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        (
            "service.image",
            "import service.pipeline",
            "image may import __init__, agreement, arrivals, budget",
        ),
        ("service.image", "from service import pipeline", "imports service.pipeline"),
        ("service.image", "from service.pipeline import Pipeline", "imports service.pipeline.Pipeline"),
        ("service.image", "from . import pipeline", "imports service.pipeline"),
        ("service.image", "from .pipeline import Pipeline", "imports service.pipeline.Pipeline"),
        ("service.image", "def f():\n  import service.pipeline", "imports service.pipeline"),
        ("service.image", "if TYPE_CHECKING:\n  from service import server", "imports service.server"),
        ("service.image", "importlib.import_module('service.server')", "imports service.server"),
        ("service.image", "from service.postprocess import top_k", "image may import"),  # same layer
        ("service.errors", "from service.config import Config", "errors may import"),
        ("service.servicers.models", "import service.server", "imports service.server"),
        ("service.retrieval.embedded", "from service.pipeline import Pipeline", "retrieval may import"),
        ("service.image", "import service", "image may import"),
        ("service.pipeline", "import grpc", "grpc belongs to cli.bench, health, http2, interceptors"),
        ("service.pipeline", "from grpc import aio", "grpc belongs to"),
        ("service.pipeline", "from grpc_health.v1 import health", "grpc_health belongs to"),
        ("service.repository", "import onnxruntime as ort", "onnxruntime belongs to cli.import_model"),
        ("service.pipeline", "from PIL import Image", "PIL belongs to cli.clip_mean, cli.quality, image"),
        ("service.image", "def f():\n  import av", "av belongs to cli.clips"),
        ("service.cli.clips", "import av", "av is imported inside functions only"),
        ("service.batching", "import prometheus_client", "prometheus_client belongs to metrics"),
        ("service.pipeline", "from fovea.v1 import image_pb2", "fovea.v1 belongs to cli.bench, server"),
        ("service.pipeline", "from fovea import v1", "fovea.v1 belongs to"),
        ("service.server", "from fovea import Client", "fovea belongs to cli"),
        ("service.cli.serve", "from fovea.v1 import image_pb2", "fovea.v1 belongs to"),
        ("service.cli.serve", "import grpc", "grpc belongs to cli.bench"),
        ("service.cli.benches", "import hdrh.histogram", "hdrh belongs to cli.bench"),
        ("service.pipeline", "from matplotlib.figure import Figure", "matplotlib belongs to cli.bench"),
        ("service.pipeline", "import faiss", "faiss belongs to retrieval"),
        ("service.cli.serve", "import training.train", "training belongs to nobody"),
        ("service.session", "import torch", "torch belongs to nobody"),
        ("service.session", "import onnx", "onnx belongs to cli.import_model"),
        ("service.__init__", "import service.errors", "__init__ may import"),
        ("service.kitchen", "", "service.kitchen has no layer"),
        ("service.kitchen.sink", "", "give service.kitchen its place"),
        ("training.train", "from service.pipeline import Pipeline", "only service.image, service.preprocess"),
        ("training.train", "import service", "training may import of service only"),
        ("training.train", "import fovea", "only training.evaluate may use the client"),
        ("training.models.resnet", "import torchvision", "torchvision is imported inside functions only"),
        ("training.models.resnet", "if True:\n  import timm", "timm is imported inside functions only"),
        ("fovea.client", "from service.errors import FoveaError", "the client has only"),
        ("fovea.client", "import training", "the client has only"),
        ("fovea.client", "import PIL", "the client has only"),
    ],
)
def test_an_offence_is_caught(module: str, source: str, complaint: str) -> None:
    found = violations(module, source)
    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "service.server",
            "import grpc.aio\nfrom fovea.v1 import image_pb2\nfrom service.config import Config",
        ),
        ("service.cli.query", "from fovea import Client\nfrom service.cli.output import print_json"),
        ("service.cli.bench.wire", "import grpc.aio\nfrom fovea.v1 import image_pb2\nimport hdrh.histogram"),
        ("service.retrieval.flat", "import faiss\nfrom service.retrieval.index import Metric"),
        ("service.retrieval.flat", "from . import segments\nfrom .index import Metric"),
        ("service.image", "import PIL.Image\nfrom service.errors import InvalidImage\nimport numpy"),
        ("training.transforms", "from service.preprocess import preprocess\nfrom PIL import Image"),
        ("training.models.timm", "def build():\n  import timm\n  return timm"),
        ("service.cli.clips", "if TYPE_CHECKING:\n  from av.packet import Packet\ndef f():\n  import av"),
        ("training.evaluate", "from fovea import Client"),
        ("fovea.client", "import asyncio, grpc, numpy\nfrom google.protobuf import message"),
    ],
)
def test_what_is_allowed_is_left_alone(module: str, source: str) -> None:
    assert violations(module, source) == []

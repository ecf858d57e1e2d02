"""The protos and the manifest's schema keep the promises that the client and other tools build on."""

import itertools
import json
import re
from pathlib import Path

import jsonschema
import pytest
from fovea.v1 import classification_pb2, embedding_pb2, image_pb2, models_pb2, retrieval_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor

PROTOS = Path(__file__).parents[1] / "protos"
FILES = sorted((PROTOS / "fovea" / "v1").glob("*.proto"))
SERVED = [module.DESCRIPTOR for module in (classification_pb2, embedding_pb2, retrieval_pb2, models_pb2)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_package_is_fovea_v1(path: Path) -> None:
    assert re.search(r"^package fovea\.v1;$", path.read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_rpc_says_what_it_does(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    bare = [
        line.strip()
        for before, line in itertools.pairwise(lines)
        if line.strip().startswith("rpc ") and not before.strip().startswith("//")
    ]
    assert bare == []


def test_generated_code_has_every_rpc_of_the_protos() -> None:
    written = {
        (service, method)
        for path in FILES
        for service, body in re.findall(r"service (\w+) \{(.*?)\n\}", path.read_text("utf-8"), re.DOTALL)
        for method in re.findall(r"rpc (\w+)\(", body)
    }
    assert written == {
        (service.name, method.name)
        for descriptor in SERVED
        for service in descriptor.services_by_name.values()
        for method in service.methods
    }


@pytest.mark.parametrize(
    ("file", "response"),
    [
        (classification_pb2.DESCRIPTOR, "ClassifyResponse"),
        (embedding_pb2.DESCRIPTOR, "EmbedResponse"),
        (retrieval_pb2.DESCRIPTOR, "SearchResponse"),
        (retrieval_pb2.DESCRIPTOR, "UpsertResponse"),
    ],
)
def test_reply_names_the_model_that_made_it(file: FileDescriptor, response: str) -> None:
    model = file.message_types_by_name[response].fields_by_name["model"].message_type
    assert model is not None
    assert model.full_name == "fovea.v1.ModelVersion"
    assert set(model.fields_by_name) == {"name", "version"}


@pytest.mark.parametrize(
    ("file", "result", "value"),
    [
        (classification_pb2.DESCRIPTOR, "ClassifyResult", "classification"),
        (embedding_pb2.DESCRIPTOR, "EmbedResult", "embedding"),
        (retrieval_pb2.DESCRIPTOR, "SearchResult", "neighbors"),
    ],
)
def test_one_result_is_its_value_or_its_own_status(file: FileDescriptor, result: str, value: str) -> None:
    outcome = file.message_types_by_name[result].oneofs_by_name["outcome"]
    assert [field.name for field in outcome.fields] == [value, "error"]
    error = outcome.fields[1].message_type
    assert error is not None
    assert error.full_name == "fovea.v1.Status"


def field_types(message: Descriptor) -> dict[str, int]:
    return {field.name: field.type for field in message.fields}


def test_an_image_is_encoded_bytes_or_raw_pixels() -> None:
    source = image_pb2.Image.DESCRIPTOR.oneofs_by_name["source"]
    assert [field.name for field in source.fields] == ["encoded", "raw"]
    assert field_types(image_pb2.RawImage.DESCRIPTOR) == {
        "data": FieldDescriptor.TYPE_BYTES,
        "height": FieldDescriptor.TYPE_UINT32,
        "width": FieldDescriptor.TYPE_UINT32,
    }


def test_manifest_schema_is_a_json_schema() -> None:
    schema = json.loads((PROTOS / "manifest.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == jsonschema.Draft202012Validator.META_SCHEMA["$id"]

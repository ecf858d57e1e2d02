"""The real server with this engine, over the wire."""

from pathlib import Path

import grpc
import numpy as np
import pytest
from fovea.v1 import image_pb2, retrieval_pb2_grpc
from fovea.v1 import retrieval_pb2 as pb

from tests.packages import SIZE, write_colors
from tests.servers import ServerProcess

TIMEOUT_S = 30
EVEN = pb.Filter(equals=pb.Equals(attribute="even", value=pb.AttributeValue(bool_value=True)))


def image(seed: int) -> image_pb2.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    return image_pb2.Image(raw=image_pb2.RawImage(data=pixels.tobytes(), height=SIZE, width=SIZE))


def search(address: str) -> list[str]:
    """The ids nearest to image 4, of those with an even number."""
    query = pb.SearchQuery(image=image(4))
    request = pb.SearchRequest(collection="photos", queries=[query], top_k=5, filter=EVEN)
    with grpc.insecure_channel(address) as channel:
        reply = retrieval_pb2_grpc.RetrievalServiceStub(channel).Search(request, timeout=TIMEOUT_S)
    return [neighbor.id for neighbor in reply.results[0].neighbors.neighbors]


def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path, url: str, namespace: str) -> None:
    write_colors(tmp_path / "models")
    options = ("--index-engine", "milvus", "--index-schema", namespace)
    arguments = (tmp_path / "models", tmp_path / "index", *options)
    environment = {"FOVEA_INDEX_URL": url}
    items = [
        pb.UpsertItem(
            id=str(n), image=image(n), attributes={"even": pb.AttributeValue(bool_value=n % 2 == 0)}
        )
        for n in range(12)
    ]
    with ServerProcess(*arguments, environment=environment) as server:
        with grpc.insecure_channel(server.address) as channel:
            stub = retrieval_pb2_grpc.RetrievalServiceStub(channel)
            stub.CreateCollection(
                pb.CreateCollectionRequest(
                    collection="photos", attributes={"even": pb.AttributeType.ATTRIBUTE_TYPE_BOOL}
                ),
                timeout=TIMEOUT_S,
            )
            stub.Upsert(pb.UpsertRequest(collection="photos", items=items), timeout=TIMEOUT_S)
        found = search(server.address)
        server.kill()
    assert found[0] == "4"
    assert len(found) == 5
    assert all(int(name) % 2 == 0 for name in found)
    with ServerProcess(*arguments, environment=environment) as server:
        assert search(server.address) == found
    assert not (tmp_path / "index").exists()


def test_a_milvus_that_is_not_there_ends_the_start_without_its_password(tmp_path: Path) -> None:
    write_colors(tmp_path / "models")
    server = ServerProcess(
        tmp_path / "models",
        tmp_path / "index",
        "--index-engine",
        "milvus",
        environment={"FOVEA_INDEX_URL": "http://u:hunter2@127.0.0.1:1/art"},
    )
    with pytest.raises(AssertionError, match=r"127\.0\.0\.1:1, database art") as caught:
        server.wait_for("ready")
    assert server.wait() != 0
    assert "hunter2" not in str(caught.value)
    server.kill()  # closes its pipe

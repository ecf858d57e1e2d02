"""What the real server does over the wire, whichever outside engine keeps its index."""

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


def check_a_kill(folder: Path, engine: str, url: str, schema: str) -> None:
    """What was acknowledged is there after a kill, and the server keeps no index of its own."""
    write_colors(folder / "models")
    options = ("--index-engine", engine, "--index-schema", schema)
    arguments = (folder / "models", folder / "index", *options)
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
    assert not (folder / "index").exists()


def check_nobody_there(folder: Path, engine: str, url: str, named: str) -> None:
    """The start ends, and says where nobody was (`named`, a pattern) without the password `hunter2`."""
    assert "hunter2" in url
    write_colors(folder / "models")
    server = ServerProcess(
        folder / "models",
        folder / "index",
        "--index-engine",
        engine,
        environment={"FOVEA_INDEX_URL": url},
    )
    with pytest.raises(AssertionError, match=named) as caught:
        server.wait_for("ready")
    assert server.wait() != 0
    assert "hunter2" not in str(caught.value)
    server.kill()  # closes its pipe

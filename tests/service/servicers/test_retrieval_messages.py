"""What is found, as messages."""

from fovea.v1 import retrieval_pb2 as pb
from fovea.v1 import status_pb2

from service.errors import ItemNotFound
from service.retrieval.index import Neighbor
from service.retrieval.schema import AttributeValue
from service.servicers.retrieval_messages import write_result

NOT_FOUND = 5  # google.rpc.Code


def test_neighbours_keep_their_order_and_the_types_of_their_attributes() -> None:
    response = pb.SearchResponse()
    attributes: dict[str, AttributeValue] = {"name": "a ☃", "size": -(2**63), "ratio": 0.5, "good": True}
    nothing: dict[str, AttributeValue] = {"name": "", "size": 0, "ratio": 0.0, "good": False}
    write_result(
        response.results.add(),
        [Neighbor("1", 0.75, attributes), Neighbor("0", 0.5, nothing), Neighbor("2", -1.0, {})],
    )
    value = pb.AttributeValue
    expected = pb.Neighbors(
        neighbors=[
            pb.Neighbor(
                id="1",
                score=0.75,
                attributes={
                    "name": value(string_value="a ☃"),
                    "size": value(int_value=-(2**63)),
                    "ratio": value(double_value=0.5),
                    "good": value(bool_value=True),
                },
            ),
            pb.Neighbor(
                id="0",
                score=0.5,
                attributes={
                    "name": value(string_value=""),
                    "size": value(int_value=0),
                    "ratio": value(double_value=0),
                    "good": value(bool_value=False),
                },
            ),
            pb.Neighbor(id="2", score=-1),
        ]
    )
    assert list(response.results) == [pb.SearchResult(neighbors=expected)]


def test_no_neighbours_are_an_answer_too() -> None:
    message = pb.SearchResult()
    write_result(message, [])
    assert message.WhichOneof("outcome") == "neighbors"


def test_an_error_stands_in_its_querys_place() -> None:
    message = pb.SearchResult()
    write_result(message, ItemNotFound("no item 'x'"))
    assert message == pb.SearchResult(error=status_pb2.Status(code=NOT_FOUND, message="no item 'x'"))

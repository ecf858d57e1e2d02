"""The standard health check, grpc.health.v1, without its package: two messages of one field each.

They live in a descriptor pool of their own, so that a program may use grpcio-health-checking too.
"""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

METHOD = "/grpc.health.v1.Health/Check"
SERVING = 1


def _message_classes() -> tuple[type[Message], type[Message]]:
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="grpc/health/v1/health.proto", package="grpc.health.v1", syntax="proto3"
    )
    request = file.message_type.add(name="HealthCheckRequest")
    request.field.add(name="service", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    reply = file.message_type.add(name="HealthCheckResponse")
    # ServingStatus; an enum is an int32 on the wire.
    reply.field.add(name="status", number=1, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = ("grpc.health.v1.HealthCheckRequest", "grpc.health.v1.HealthCheckResponse")
    first, second = (message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in names)
    return first, second


_Request, _Reply = _message_classes()


def encode_request(model: str | None) -> bytes:
    """The check of the whole server, or of one model."""
    message = _Request()
    message.service = "" if model is None else f"model/{model}"  # type: ignore[attr-defined] # made above
    return message.SerializeToString()


def is_serving(data: bytes) -> bool:
    """Whether the reply says SERVING."""
    message = _Reply()
    message.ParseFromString(data)
    return bool(message.status == SERVING)  # type: ignore[attr-defined] # made above


def not_ready(target: str, model: str | None, timeout: float) -> str:
    """What to say when waiting was in vain."""
    what = "no server" if model is None else f"no server with model {model!r}"
    return f"{what} was ready at {target} within {timeout:g} s"


def unknown(target: str, model: str | None) -> str:
    """What to say when the server has never heard of it."""
    return f"the server at {target} has no {'health status' if model is None else f'model {model!r}'}"

"""The least that `grpc.aio` can be made to do with a model: a handler that decodes, runs and answers.

Run as a child of a benchmark: prints its address and serves Classify until SIGTERM. One image a call, one
call at a time, in the event loop itself: without queue, batches, threads, limits, deadlines or metrics.
"""

import argparse
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import uvloop
from fovea.v1 import classification_pb2 as pb

from benchmarks.child_server import serve
from service.image import decode_picture
from service.logs import configure_logs
from service.manifest import read_manifest
from service.model import Prediction
from service.model_settings import ModelSettings
from service.postprocess import top_k
from service.preprocess import Preprocessing, preprocess
from service.servicers.scores import ScoreWriter
from service.session import open_sessions

_TOP_K = 5
# Those of the server's own that a lone call feels.
_OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 256 * 1024),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
]


class _Classifier:
    def __init__(self, package: Path, execution_provider: str, precision: str) -> None:
        self._manifest = read_manifest(package)
        self._preprocessing = Preprocessing.of(self._manifest)
        self._writer = ScoreWriter(self._manifest.labels)
        settings = ModelSettings(
            execution_provider=execution_provider, precision=precision, intra_op_threads=1, max_batch_size=1
        )
        self._session = open_sessions(self._manifest, settings)[0]
        self._session.warm_up()

    async def classify(self, request: pb.ClassifyRequest, _: "grpc.aio.ServicerContext[Any, Any]") -> bytes:
        picture = decode_picture(
            request.images[0].encoded, least_short_side=self._preprocessing.least_short_side
        )
        outputs = self._session.run(preprocess(picture, self._preprocessing)[None])
        ranking = top_k(outputs.logits, self._manifest.task, self._manifest.temperature, _TOP_K)
        predictions = [*map(Prediction, outputs.logits, outputs.embedding, *ranking)]
        return self._writer.write(predictions, _TOP_K, include_logits=False)


async def _serve(classifier: _Classifier) -> None:
    server = grpc.aio.server(options=_OPTIONS)
    handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
        classifier.classify, request_deserializer=pb.ClassifyRequest.FromString
    )
    service = pb.DESCRIPTOR.services_by_name["ClassificationService"].full_name
    await serve(server, service, {"Classify": handler})


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("--execution-provider", required=True)
    parser.add_argument("--precision", required=True)
    options = parser.parse_args()
    configure_logs("auto")  # on stderr: the first line on stdout is the address
    uvloop.run(_serve(_Classifier(options.package, options.execution_provider, options.precision)))


if __name__ == "__main__":
    main()

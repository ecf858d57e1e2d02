"""fovea.v1.ModelService: proto ↔ plain values."""

from typing import Any

import grpc.aio
from fovea.v1 import models_pb2 as pb
from fovea.v1 import models_pb2_grpc

from service.model import Model
from service.repository import ModelRepository
from service.servicers.messages import name_model

_TASKS = {
    "single_label": pb.TASK_SINGLE_LABEL,
    "multi_label": pb.TASK_MULTI_LABEL,
    "embedding": pb.TASK_EMBEDDING,
}


class ModelServicer(models_pb2_grpc.ModelServiceServicer):
    """Says which models there are."""

    def __init__(self, repository: ModelRepository) -> None:
        self._repository = repository

    async def ListModels(
        self, request: pb.ListModelsRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> pb.ListModelsResponse:
        """Those that are loaded, and those that will be."""
        return pb.ListModelsResponse(
            models=[self._describe(model) for model in self._repository.models],
            loading=[
                pb.LoadingModel(
                    name=wanted.name,
                    version=wanted.version,
                    is_default=wanted.name == self._repository.default_name,
                )
                for wanted in self._repository.loading
            ],
        )

    async def GetModel(
        self, request: pb.GetModelRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> pb.GetModelResponse:
        """One of them."""
        model = self._repository.get(request.model, request.version)
        name_model(model)
        return pb.GetModelResponse(model=self._describe(model))

    def _describe(self, model: Model) -> pb.Model:
        manifest = model.manifest
        return pb.Model(
            name=manifest.name,
            version=manifest.version,
            is_default=manifest.name == self._repository.default_name,
            architecture=manifest.architecture,
            task=_TASKS[manifest.task],
            input_height=manifest.input_height,
            input_width=manifest.input_width,
            labels=manifest.labels,
            embedding_dimension=manifest.embedding_dimension,
            execution_provider=model.execution_provider,
            precision=model.precision,
            fingerprint=model.fingerprint,
            max_batch_size=model.max_batch_size,
            preprocessing=pb.Preprocessing(
                resize_short_side=manifest.resize_short_side,
                interpolation=manifest.interpolation,
                jpeg_scaled_decode=manifest.jpeg_scaled_decode,
            ),
        )

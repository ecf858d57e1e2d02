"""A checkpoint of a run, in PyTorch."""

from pathlib import Path
from typing import ClassVar

import torch

from training.evaluate.local import LocalTarget, NetworkOutputs, Pixels
from training.normalization import Normalization
from training.run_model import RunModel, load_run_model
from training.run_temperature import read_temperature, weights_digest


class RunTarget(LocalTarget):
    """Asks a checkpoint.

    Args:
        run: the folder of `fovea-train fit`.
        checkpoint: 'best' or 'last'.
        device: 'auto', 'cpu' or 'cuda'.
        batch_size: pictures at once.

    Attributes:
        run_folder: `run`.
        loaded: the network and its configuration.
        temperature: the run's own, where it was fitted for these weights; else 1.
    """

    kind: ClassVar[str] = "checkpoint"
    temperature: float = 1.0

    def __init__(
        self, run: Path, checkpoint: str = "best", device: str = "auto", batch_size: int = 64
    ) -> None:
        loaded = load_run_model(run, checkpoint)
        self.run_folder = run
        self._set_up(loaded, device, batch_size)
        self.name = f"{checkpoint} of {run}"
        self.facts["checkpoint"] = f"{checkpoint}, epoch {loaded.checkpoint.epoch}"
        self.facts["weights"] = weights_digest(loaded.checkpoint.model)
        fitted = read_temperature(run, loaded.checkpoint.model)
        if fitted is not None:
            self.temperature = fitted.value

    def _set_up(self, loaded: RunModel, device: str, batch_size: int) -> None:
        config = loaded.config
        self.loaded, self.batch_size = loaded, batch_size
        self.task, self.labels = loaded.task, loaded.labels
        self.preprocessing = config.preprocessing
        chosen = device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
        self.device = torch.device(chosen)
        self.model = loaded.model.to(self.device)
        self.normalization = Normalization(config.normalization.mean, config.normalization.std).to(
            self.device
        )
        self.facts = {"architecture": config.model.architecture, "engine": f"PyTorch, {chosen}"}

    @torch.inference_mode()
    def run(self, pixels: Pixels) -> NetworkOutputs:
        """Logits, and pooled features brought to unit length as the exported graph does."""
        inputs = self.normalization(torch.from_numpy(pixels).to(self.device))
        features = self.model.features(inputs)
        logits = self.model.classify(features)
        embeddings = torch.nn.functional.normalize(features)
        return logits.cpu().numpy(), embeddings.cpu().numpy()

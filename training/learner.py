"""A network and what it is trained by, as one module: what is compiled, and what processes share."""

from torch import Tensor, nn

from training.models import Classifier
from training.objective import Objective


class Learner(nn.Module):
    """Calls the objective on the network.

    `DistributedDataParallel` and `torch.compile` act on a module's forward alone, and an objective may use
    other parts of the network than its forward, and parameters of its own.

    Args:
        model: the network.
        objective: what is made small.
    """

    def __init__(self, model: Classifier, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
        """Normalised float32 [batch, 3, height, width] and targets → scalar loss, logits or None."""
        step = self.objective(self.model, inputs, targets)
        return step.loss, step.logits

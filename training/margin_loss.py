"""What a capsule network learns by: margins on its capsules' lengths, and a picture drawn from them.

Sabour, Frosst & Hinton 2017, arXiv:1710.09829, sections 3 and 4.1.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor, nn

from training.data import Batches
from training.errors import SettingError
from training.models import Classifier
from training.models.capsnet import CapsNet
from training.normalization import Normalization
from training.objective import Objective, Step, accuracies, average_precisions, one_hot

# Of the picture that is drawn; the paper's digits have that size.
_SIDE = 28


class MarginLoss(Objective):
    """Capsules of classes that are there are to be long, the others short, each of them by a margin.

    In training a decoder draws the picture from the capsules of its own classes alone, the others set
    to zero, which makes them say what the class looks like here; it is no part of the network.

    Args:
        classes: capsules of the network.
        embedding_dimension: of all its capsules together.
        settings: by name, all of `defaults`.
        task: "single_label" or "multi_label".
        normalization: what turned pixels into the network's input; None where it sees pixels from 0 to 1.

    Attributes:
        defaults: the paper's: the length to exceed, m⁺; the one to stay below, m⁻; how much absent
            classes count, λ; and how much the sum of the drawing's squared errors does.
        selects_by: mean average precision where images have several labels, else accuracy.

    Raises:
        SettingError: a setting is out of range.
    """

    defaults = {  # noqa: RUF012 - never changed
        "m_plus": 0.9,
        "m_minus": 0.1,
        "absent_weight": 0.5,
        "reconstruction": 0.0005,
    }

    def __init__(
        self,
        classes: int,
        embedding_dimension: int,
        settings: dict[str, float],
        task: str = "single_label",
        normalization: Normalization | None = None,
    ) -> None:
        super().__init__()
        self.classes, self.settings = classes, settings
        if not 0 <= settings["m_minus"] < settings["m_plus"] <= 1:
            raise SettingError(
                f"--loss margin has m_minus={settings['m_minus']:g} and m_plus={settings['m_plus']:g}; "
                "expected lengths with 0 <= m_minus < m_plus <= 1"
            )
        self.several = task == "multi_label"
        self.selects_by = "mean_average_precision" if self.several else "accuracy"
        self.decoder = Decoder(embedding_dimension, normalization) if settings["reconstruction"] else None

    def forward(self, model: Classifier, inputs: Tensor, targets: Tensor) -> Step:
        """As `Objective.forward`.

        Raises:
            SettingError: the network has no capsules.
        """
        if not isinstance(model, CapsNet):
            raise SettingError(
                f"--loss margin is about the lengths of capsules, and {type(model).__name__} has none; "
                "expected --arch capsnet"
            )
        capsules = model.features(inputs)
        present = one_hot(targets, self.classes)
        loss = self.margins(model.lengths(capsules), present)
        if self.decoder is not None:
            own = capsules.reshape(len(capsules), self.classes, -1) * present[:, :, None]
            errors = self.decoder(own.flatten(1), inputs)
            loss = loss + self.settings["reconstruction"] * errors.mean()
        return Step(loss, model.classify(capsules))

    def margins(self, lengths: Tensor, present: Tensor) -> Tensor:
        """Equation 4, summed over the classes, the mean over the batch.

        Args:
            lengths: float [batch, classes], from 0 to 1.
            present: float [batch, classes]: 1 where the class is there, 0 where not; of pictures that were
                mixed their shares.
        """
        told = self.settings
        too_short = F.relu(told["m_plus"] - lengths).square()
        too_long = F.relu(lengths - told["m_minus"]).square()
        losses = present * too_short + told["absent_weight"] * (1 - present) * too_long
        return losses.sum(dim=1).mean()

    def validate(
        self, model: Classifier, normalization: nn.Module, batches: Batches, device: torch.device
    ) -> dict[str, float]:
        """Loss of the margins alone with accuracies, or, with several labels, mean average precision."""
        if self.several:
            return average_precisions(model, normalization, batches, device)
        return accuracies(model, normalization, batches, device, self._margins_of_logits)

    def _margins_of_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        # The logit of a length is what a sigmoid takes back to it.
        return self.margins(logits.sigmoid(), one_hot(labels, self.classes))


class Decoder(nn.Module):
    """Three fully connected layers that draw the picture at 28 pixels (figure 2).

    Args:
        embedding_dimension: of all capsules together.
        normalization: as of `MarginLoss`.
    """

    def __init__(self, embedding_dimension: int, normalization: Normalization | None = None) -> None:
        super().__init__()
        self.normalization = normalization
        self.layers = nn.Sequential(
            nn.Linear(embedding_dimension, 512),
            nn.ReLU(inplace=True),
            nn.Linear(512, 1024),
            nn.ReLU(inplace=True),
            nn.Linear(1024, 3 * _SIDE**2),
        )

    def forward(self, capsules: Tensor, inputs: Tensor) -> Tensor:
        """How far the drawings are from the pictures.

        Args:
            capsules: float32 [batch, embedding_dimension], zeros where the picture doesn't show the class.
            inputs: float32 [batch, 3, height, width], normalised.

        Returns:
            The squared errors of pixels from 0 to 1, summed over the pixels and averaged over the three
            channels, so that grey pictures count as in the paper: float32 [batch].
        """
        drawn = self.layers(capsules).float().sigmoid()
        pixels = inputs if self.normalization is None else self.normalization.to_shares(inputs)
        pixels = F.adaptive_avg_pool2d(pixels, _SIDE)
        errors: Tensor = (drawn - pixels.flatten(1)).square().sum(dim=1) / 3
        return errors

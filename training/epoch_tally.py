"""What an epoch's training steps came to, counted on the device."""

import torch
from torch import Tensor
from torch import distributed as dist


class EpochTally:
    """Sums over batches that wait for no GPU until somebody reads them.

    Args:
        device: where the batches are.
    """

    def __init__(self, device: torch.device) -> None:
        # Sum of losses, images that count in it, hits, images that count in those.
        self._sums = torch.zeros(4, dtype=torch.float64, device=device)

    @torch.no_grad()
    def add(self, loss: Tensor, logits: Tensor | None, targets: Tensor) -> None:
        """Count a batch.

        Args:
            loss: scalar, mean over the batch.
            logits: float [batch, classes], or None.
            targets: int64 [batch]; float32 [batch, classes] of mixed pictures count by their larger share.
        """
        count = len(targets)
        self._sums[0] += loss.double() * count
        self._sums[1] += count
        if logits is not None:
            labels = targets.argmax(1) if targets.ndim == 2 else targets
            self._sums[2] += (logits.argmax(1) == labels).sum()
            self._sums[3] += count

    def sums(self) -> list[float]:
        """Loss sum, its images, hits, their images, of all processes together; all of them call it."""
        sums = self._sums.clone()
        if dist.is_initialized():
            dist.all_reduce(sums)
        return [float(value) for value in sums]

    def restore(self, sums: list[float]) -> None:
        """Go on from `sums()`; in one of the processes only."""
        self._sums.copy_(torch.tensor(sums, dtype=torch.float64))

"""One seed for each batch of a run, so that going on in the middle draws what a run in one piece would."""

import hashlib

import torch


def seed_step(seed: int, epoch: int, batch: int) -> None:
    """Seed PyTorch's generators for what one batch draws: augmentation, dropout, mining.

    Args:
        seed: the run's.
        epoch: from 1.
        batch: its number in the epoch, counted over all processes: batch × processes + rank. So two
            processes draw what one does that accumulates the same two batches.
    """
    digest = hashlib.blake2b(f"{seed}/{epoch}/{batch}".encode(), digest_size=8).digest()
    # Without the highest bit: PyTorch takes seeds of 64 bits with a sign.
    torch.manual_seed(int.from_bytes(digest) >> 1)

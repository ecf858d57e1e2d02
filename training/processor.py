"""How PyTorch uses this machine's cores and memory; once a process, before it learns."""

import ctypes
import os
import platform

import torch

# mallopt's names for them, in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# The highest that glibc takes: from this size on every block comes from the system and goes back to it.
_LARGEST_KEPT_BYTES = 32 << 20
_MOST_KEPT_BYTES = (1 << 31) - 1
_USERS_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def use_processor(threads: int) -> None:
    """Compute on so many threads, and keep freed memory.

    Args:
        threads: of PyTorch.
    """
    torch.set_num_threads(threads)
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Have the next step, or the next picture, take over the memory of the last one.

    A step's activations are freed by its backward pass. glibc gives them back to the system, which zeroes
    every page again for the next step: for a CIFAR ResNet-20 that is a twentieth of the time. Where the
    environment says how glibc is to do it, or malloc isn't glibc's, it stays as it is.
    """
    if platform.libc_ver()[0] == "glibc" and not any(name in os.environ for name in _USERS_OWN):
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
        libc.mallopt(_TRIM_THRESHOLD, _MOST_KEPT_BYTES)

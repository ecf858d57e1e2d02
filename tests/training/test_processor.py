"""How training uses the machine's memory."""

import os
import platform
import subprocess
import sys

import pytest

# Steps of a small network; the pages that the system had to give anew in some of them.
_STEPS = """
import resource, sys, torch
from training.models import architecture
from training.processor import use_processor
if sys.argv[1] == "kept":
    use_processor(1)
model = architecture("resnet20-cifar").build(10).train()
images = torch.ones(64, 3, 32, 32)
def step():
    model(images).sum().backward()
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_memory_of_a_step_is_kept_for_the_next() -> None:
    kept, plain = _new_pages("kept"), _new_pages("plain")
    assert kept < plain / 4


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_what_the_environment_says_of_memory_stays() -> None:
    assert _new_pages("kept", MALLOC_MMAP_THRESHOLD_="65536") > 300_000


def _new_pages(how: str, **variables: str) -> int:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", _STEPS, how],
        env=plain | variables,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return int(done.stdout)

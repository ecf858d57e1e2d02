"""The commit of this code, for the record."""

import subprocess
from pathlib import Path


def commit() -> str:
    """The hash, with '-dirty' when files were changed since; empty when this isn't a checkout."""
    root = Path(__file__).resolve().parent.parent
    # Installed into somebody else's repository, git would name theirs.
    if not (root / ".git").exists():
        return ""
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude", "*"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()

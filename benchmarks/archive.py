"""An archive of pictures, unpacked once."""

import tarfile
from pathlib import Path


def unpack(archive: Path, folder: Path) -> Path:
    """The archive's content in `folder`, unpacked only once.

    Raises:
        SystemExit: there is no archive.
    """
    if not folder.exists():
        if not archive.exists():
            raise SystemExit(
                f"no pictures: {archive} is missing; name the archive, or the folder that it holds"
            )
        partial = folder.with_name(f".{folder.name}")
        with tarfile.open(archive) as content:
            content.extractall(partial, filter="data")
        partial.rename(folder)
    return folder

"""What stands for one image in a message, and light to import: the other commands load it too."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Of raw images, in pixels."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


@dataclass(frozen=True)
class RawPixels:
    """uint8 [height, width, 3] RGB in C order, as bytes."""

    data: bytes
    size: Size


# A file's bytes, or pixels.
Payload = bytes | RawPixels


def size_bytes(payload: Payload) -> int:
    """Of the file or of the pixels."""
    return len(payload.data if isinstance(payload, RawPixels) else payload)

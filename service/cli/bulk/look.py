"""Whether an image has to be written, and with what."""

from collections.abc import Mapping

from fovea import AttributeValue

from service.cli.bulk.attributes import SHA256, contains, is_unchanged, wanted, with_own
from service.cli.bulk.entry import Entry, Unusable, content_of, digest, stamp_of
from service.cli.bulk.writer import Work


class Look:
    """Compares a source's image with the item that is stored."""

    def __init__(self, schema: Mapping[str, str], *, checksum: bool) -> None:
        """Prepare.

        Args:
            schema: the collection's: name → type.
            checksum: read every file, instead of trusting its size and time.
        """
        self._schema, self._checksum = schema, checksum

    def at(self, entry: Entry, stored: Mapping[str, AttributeValue]) -> Work | None:
        """What has to be written for an entry; None: nothing.

        Args:
            entry: the image.
            stored: the attributes of its item; empty: there is none.

        Raises:
            Unusable: the image or what is said of it can't be used.
        """
        if entry.fault:
            raise Unusable(entry.fault)
        attributes = wanted(entry, self._schema)
        stamp = stamp_of(entry.place)
        if not self._checksum and is_unchanged(stored, attributes, stamp):
            return None
        content = content_of(entry.place)
        sha256 = digest(content)
        complete = with_own(attributes, sha256, stamp)
        if contains(stored, complete):
            return None
        is_same = stored.get(SHA256) == sha256
        return Work(entry.id, entry.place, content, sha256, complete, is_same)

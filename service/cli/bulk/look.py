"""Whether an image has to be written, and with what."""

from collections.abc import Mapping
from dataclasses import dataclass

from fovea import AttributeValue

from service.cli.bulk.attributes import PATH, SHA256, contains, is_unchanged, wanted, with_own
from service.cli.bulk.entry import Entry, Unusable, content_of, digest, stamp_of
from service.cli.bulk.step import TAKEN
from service.cli.bulk.writer import Work


@dataclass(frozen=True)
class Rules:
    """When an image is written.

    Attributes:
        checksum: read every file, instead of trusting its size and time.
        replace: write it over an item that another file made.
    """

    checksum: bool = False
    replace: bool = False


class Look:
    """Compares a source's image with the item that is stored."""

    def __init__(self, schema: Mapping[str, str], rules: Rules) -> None:
        """Prepare.

        Args:
            schema: the collection's: name → type.
            rules: when an image is written.
        """
        self._schema, self._rules = schema, rules

    def at(self, entry: Entry, stored: Mapping[str, AttributeValue]) -> Work | None:
        """What has to be written for an entry; None: nothing.

        Args:
            entry: the image.
            stored: the attributes of its item; empty: there is none.

        Raises:
            Unusable: the image or what is said of it can't be used, or its id is another image's.
        """
        if entry.fault:
            raise Unusable(entry.fault)
        attributes = wanted(entry, self._schema)
        stamp = stamp_of(entry.place)
        if not self._rules.checksum and is_unchanged(stored, attributes, stamp):
            return None
        content = content_of(entry.place)
        sha256 = digest(content)
        complete = with_own(attributes, sha256, stamp)
        if contains(stored, complete):
            return None
        is_same = stored.get(SHA256) == sha256
        # Cameras all count from IMG_0001: a second folder must not silently take the first one's place.
        other = stored.get(PATH, "")
        if not (is_same or self._rules.replace) and other and other != complete.get(PATH, other):
            raise Unusable(
                f"{TAKEN}, {other}; give the ids of this source a --prefix, or --replace what is there"
            )
        return Work(entry.id, entry.place, content, sha256, complete, is_same)

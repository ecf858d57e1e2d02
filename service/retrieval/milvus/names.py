"""What things are called in Milvus, whose names have letters, digits and '_' only, 255 at most.

<namespace>__c_<key>     a collection's items, whatever name it has
<namespace>__n_<name>    an alias: the collection of that name
<namespace>__t_<name>    an alias: the collection that is taking this name, see `catalog`
<namespace>__specs       what the collections are made of
"""

import base64
import binascii

# Longer ones come as base32; both forms are short enough.
_MAX_ESCAPED = 200
_ESCAPES = {"_": "_u", "-": "_d", ".": "_p"}
_BASE32 = "_b"


class Names:
    """The names of one namespace."""

    def __init__(self, namespace: str) -> None:
        self.specs = f"{namespace}__specs"
        self.collection_prefix = f"{namespace}__c_"
        self._prefixes = {"n": f"{namespace}__n_", "t": f"{namespace}__t_"}

    def alias(self, name: str, kind: str = "n") -> str:
        """Of a collection's name; kind "t" is that of one to be taken."""
        return self._prefixes[kind] + _escaped(name)

    def named(self, aliases: list[str], kind: str = "n") -> set[str]:
        """The collections' names that stand in aliases of a kind."""
        prefix = self._prefixes[kind]
        return {_unescaped(alias[len(prefix) :]) for alias in aliases if alias.startswith(prefix)}


def _escaped(name: str) -> str:
    text = "".join(_ESCAPES.get(character, character) for character in name)
    if len(text) <= _MAX_ESCAPED:
        return text
    return _BASE32 + base64.b32encode(name.encode()).decode().rstrip("=").lower()


def _unescaped(text: str) -> str:
    if text.startswith(_BASE32):
        coded = text[len(_BASE32) :].upper()
        try:
            return base64.b32decode(coded + "=" * (-len(coded) % 8)).decode()
        except (binascii.Error, UnicodeDecodeError):
            return text  # somebody else's: no collection has such a name
    for character in "-.":
        text = text.replace(_ESCAPES[character], character)
    return text.replace("_u", "_")

"""Names in Milvus: short enough, of the right characters, and never two for one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.retrieval.checks import is_name
from service.retrieval.milvus.names import Names

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", fullmatch=True)


@pytest.mark.parametrize(
    "name", ["a", "A", "photos", "a_b", "a-b", "a.b", "a_d", "a_ud", "_".join("ab" * 30), "a" + "_" * 127]
)
def test_a_name_comes_back(name: str) -> None:
    names = Names("n" * 32)
    for kind in ("n", "t"):
        alias = names.alias(name, kind)
        assert re.fullmatch("[A-Za-z_][A-Za-z0-9_]{0,254}", alias)
        assert names.named([alias], kind) == {name}
    assert names.named([names.alias(name)], "t") == set()


@given(NAMES)
def test_any_name_comes_back(name: str) -> None:
    test_a_name_comes_back(name)


def test_names_of_other_namespaces_are_not_ours() -> None:
    ours = Names("fovea")
    for other in ("fovea_n", "fove", "fovea2"):
        aliases = [Names(other).alias(name) for name in ("photos", "n_photos")]
        assert ours.named(aliases) == set()
        assert not Names(other).collection_prefix.startswith(ours.collection_prefix)


def test_an_alias_of_somebody_else_is_no_collections_name() -> None:
    names = Names("fovea")
    for text in ("_b!!!!", "_b1", "_baaaa"):
        assert not any(is_name(name) for name in names.named([f"fovea__n_{text}"]))

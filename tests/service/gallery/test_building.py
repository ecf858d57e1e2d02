"""Names of collections that are being built, and what a dead server leaves of them."""

import time

import pytest

from service.errors import CollectionNotFound
from service.gallery.building import drop_left_overs, new_name
from service.retrieval.checks import check_spec
from service.retrieval.collection_names import is_building
from service.retrieval.index import CollectionSpec, Metric
from tests.service.gallery.conftest import CountingIndex


def spec(name: str) -> CollectionSpec:
    return CollectionSpec(name, 2, Metric.L2, "")


def test_names_are_names_and_never_the_same() -> None:
    names = {new_name() for _ in range(100)}
    assert len(names) == 100
    for name in names:
        check_spec(spec(name))
        assert is_building(name)
    assert not is_building("fovea")


@pytest.mark.parametrize("shared", [False, True])
def test_left_overs_are_dropped_at_once_unless_they_may_be_another_servers(
    index: CountingIndex, shared: bool
) -> None:
    young = new_name()
    old = f"fovea-building.{int(time.time() - 90_000):x}.0123456789abcdef"
    strange = "fovea-building.someday"
    for name in ("photos", young, old, strange):
        index.create(spec(name))
    drop_left_overs(index, shared=shared)
    left = {info.spec.name for info in index.list_collections()}
    assert left == ({"photos", young, strange} if shared else {"photos"})
    with pytest.raises(CollectionNotFound):
        index.describe(old)

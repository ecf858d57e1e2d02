import numpy as np
import pytest

from service.retrieval.index import Storage
from service.retrieval.pgvector import vectors


@pytest.mark.parametrize(("storage", "numbers"), [(Storage.FLOAT32, ">f4"), (Storage.FLOAT16, ">f2")])
def test_packs_as_pgvector_reads(storage: Storage, numbers: str) -> None:
    rows = np.array([[1, -2.5, 0], [65_504, 1 / 3, 2.0**-14]], np.float32)
    packed = vectors.pack(rows, storage)
    assert [one[:4] for one in packed] == [b"\0\x03\0\0"] * 2
    assert packed[0][4:] == rows[0].astype(numbers).tobytes()
    read = vectors.unpack([one[4:] for one in packed], 3, storage)
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, rows, rtol=1e-3 if storage is Storage.FLOAT16 else 0)
    read[:] = 0  # the caller's own


def test_of_none_there_are_none() -> None:
    assert vectors.pack(np.empty((0, 3), np.float32), Storage.FLOAT32) == []
    assert vectors.unpack([], 3, Storage.FLOAT16).shape == (0, 3)

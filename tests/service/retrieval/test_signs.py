"""Codes: what their bits tell of angles, and that they don't depend on how they are made."""

import threading
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from service.retrieval.index import Metric
from service.retrieval.signs import MAX_BITS, MIN_BITS, Angles, Codes, SignCoder
from tests.service.retrieval.clusters import DIMENSION, drawn, stretched


@pytest.mark.parametrize(
    ("dimension", "bits"), [(1, MIN_BITS), (100, MIN_BITS), (257, 320), (512, 512), (3000, MAX_BITS)]
)
def test_a_code_has_about_a_bit_a_dimension(dimension: int, bits: int) -> None:
    coder = SignCoder.around(np.zeros(dimension, np.float32))
    assert coder.bit_count == bits
    assert coder.encode(np.ones((3, dimension), np.float32)).shape == (3, bits // 8)


@pytest.mark.parametrize("dimension", [32, 64, 512])
def test_differing_bits_tell_the_angle_seen_from_the_mean(dimension: int) -> None:
    vectors = drawn(400, 1, dimension=dimension) + np.float32(0.3)
    coder = SignCoder.around(vectors.mean(axis=0))
    bits = np.unpackbits(coder.encode(vectors), axis=1)
    differing = (bits[:200] != bits[200:]).mean(axis=1)
    seen = vectors - coder.center
    cosines = np.einsum("nd,nd->n", seen[:200], seen[200:])
    angles = (
        np.arccos(cosines / np.linalg.norm(seen[:200], axis=1) / np.linalg.norm(seen[200:], axis=1)) / np.pi
    )
    # A binomial share of so many bits: none of 200 beyond 4.5 deviations, and unbiased.
    deviations = (differing - angles) / np.sqrt(angles * (1 - angles) / coder.bit_count)
    assert np.abs(deviations).max() < 4.5
    assert abs(deviations.mean()) < 0.5
    assert 0.5 < deviations.std() < 1.3


def codes_of(coder: SignCoder, vectors: NDArray[Any]) -> Codes:
    codes = coder.room(len(vectors), 128)
    coder.code(vectors, codes)
    return codes


def test_codes_are_the_same_however_they_are_made() -> None:
    vectors = drawn(3000, 1).astype(np.float16)
    coder = SignCoder.around(vectors.mean(axis=0, dtype=np.float32))
    again = SignCoder(coder.center, coder.directions)
    whole, one = codes_of(coder, vectors), codes_of(again, vectors[1234:1235])
    bits = np.hstack([whole.heads, whole.tails])
    assert whole.heads.shape[1] == 16
    np.testing.assert_array_equal(np.hstack([one.heads, one.tails])[0], bits[1234])
    np.testing.assert_array_equal(coder.encode(vectors.astype(np.float32)), bits)
    wide = vectors.astype(np.float64)
    np.testing.assert_allclose(whole.lengths, np.linalg.norm(wide - coder.center, axis=1), rtol=1e-5)
    np.testing.assert_allclose(whole.projections, wide @ coder.center, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("metric", Metric)
def test_angles_follow_from_scores(metric: Metric) -> None:
    vectors, queries = drawn(50, 1), drawn(3, 2)
    if metric is not Metric.COSINE:
        vectors, queries = stretched(vectors, 0.5), stretched(queries, 0.5)
    coder = SignCoder.around(vectors.mean(axis=0))
    codes = codes_of(coder, vectors)
    for line, query in enumerate(queries):
        raw = -np.square(vectors - query).sum(axis=1) if metric is Metric.L2 else vectors @ query
        seen, own = vectors - coder.center, query - coder.center
        cosines = seen @ own / np.linalg.norm(seen, axis=1) / np.linalg.norm(own)
        shares = Angles(coder, metric, queries).of(line, raw, codes.lengths, codes.projections)
        np.testing.assert_allclose(shares, np.arccos(cosines) / np.pi, atol=1e-5)


def test_a_vector_at_the_mean_has_a_code_and_an_angle() -> None:
    coder = SignCoder.around(np.ones(DIMENSION, np.float32))
    vectors = np.ones((1, DIMENSION), np.float32)
    codes = codes_of(coder, vectors)
    assert codes.lengths[0] == 0
    raw = np.array([DIMENSION], np.float32)
    shares = Angles(coder, Metric.INNER_PRODUCT, vectors).of(0, raw, codes.lengths, codes.projections)
    assert 0 <= shares[0] <= 1


def test_encoding_starts_no_threads_of_its_own() -> None:
    coder = SignCoder.around(np.zeros(DIMENSION, np.float32))
    threads: list[int] = []

    def work() -> None:
        faiss.omp_set_num_threads(2)
        coder.encode(drawn(10, 1))
        threads.append(faiss.omp_get_max_threads())

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert threads == [1]

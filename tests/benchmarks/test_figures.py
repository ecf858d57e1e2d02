"""What a benchmark prints last, and the exit status by which a script tells."""

import math

import pytest

from benchmarks.figures import Figure, conclude


@pytest.mark.parametrize(
    ("figures", "status", "lines"),
    [
        ([Figure("ratio", 0.92, 0.92)], 0, ["figure: ratio 0.920 >= 0.92"]),
        ([Figure("ratio", 0.919, 0.92)], 1, ["figure: ratio 0.919 >= 0.92"]),
        ([Figure("p99_ms", 10.0, 10.0, at_most=True)], 0, ["figure: p99_ms 10.000 <= 10"]),
        ([Figure("p99_ms", 10.1, 10.0, at_most=True)], 1, ["figure: p99_ms 10.100 <= 10"]),
        ([Figure("share", 0.3)], 0, ["figure: share 0.300"]),
        ([Figure("a", 2.0, 1.0), Figure("b", 0.5, 1.0)], 1, ["figure: a 2.000 >= 1", "figure: b 0.500 >= 1"]),
        # What wasn't measured holds no bar.
        ([Figure("ratio", math.nan, 0.9)], 1, ["figure: ratio nan >= 0.9"]),
        ([Figure("p99_ms", math.nan, 10.0, at_most=True)], 1, ["figure: p99_ms nan <= 10"]),
    ],
)
def test_the_status_says_whether_every_bar_holds(
    figures: list[Figure], status: int, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        conclude(*figures)
    assert ended.value.code == status
    assert capsys.readouterr().out.splitlines() == lines


def test_a_quick_run_has_no_figures(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        conclude(Figure("ratio", 0.1, 0.9), quick=True)
    assert ended.value.code == 0
    assert "figure: " not in capsys.readouterr().out

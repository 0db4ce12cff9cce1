"""The soak script reports resources that grow; the long run itself is `make soak`."""

from __future__ import annotations

import pytest

from tests.reliability.soak import Usage, growth, report


def test_memory_of_the_warm_up_is_no_growth() -> None:
    assert growth([100.0, 400.0, 600.0] + [600.0] * 12) == 0


def test_a_steady_leak_is_growth() -> None:
    assert growth([500.0 + 5 * cycle for cycle in range(40)]) > 90


@pytest.mark.parametrize(
    ("leak", "code"),
    [(lambda n: Usage(600, 20, 4), 0), (lambda n: Usage(600 + 5 * n, 20, 4), 1), (lambda n: Usage(600, 20 + n, 4), 1)],
    ids=["stable", "memory", "files"],
)
def test_the_exit_code_reports_growth(leak: object, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert report([leak(n) for n in range(40)]) == code  # type: ignore[operator]
    assert ("grows" in capsys.readouterr().out) == bool(code)

"""How far an evaluation is, by hand-made arithmetic."""

import io
from collections.abc import Iterator

from rich.console import Console

from ldr2hdr_cli.evaluation.progress import Amount, watched


def lines(seconds: float, scenes: list[str], results: list[str], each: int, terminal: bool = False) -> str:
    """What is said where every result takes so many seconds."""
    now = 0.0

    def made() -> Iterator[str]:
        nonlocal now
        for name in results:
            now += seconds
            yield name

    console = Console(file=io.StringIO(), width=100, force_terminal=terminal)
    assert list(watched(made(), "pictures", Amount(scenes, each), str, console, lambda: now)) == results
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_line_every_half_minute_where_stderr_is_no_terminal() -> None:
    said = lines(10, ["a", "b"], ["a"] * 5 + ["b"] * 5, 5).splitlines()
    assert said == [
        "Evaluating pictures: 3 of 10, 70 s left",
        "Evaluating pictures: 6 of 10, 40 s left",
        "Evaluating pictures: 9 of 10, 10 s left",
    ]
    assert lines(1, ["a"], ["a"] * 20, 20) == ""  # a short run says nothing


def test_long_runs_are_told_in_minutes_and_hours() -> None:
    assert lines(60, ["a"], ["a"] * 10, 10).startswith("Evaluating pictures: 1 of 10, 9 min left\n")
    assert lines(900, ["a"], ["a"] * 10, 10).startswith("Evaluating pictures: 1 of 10, 2.2 h left\n")


def test_a_terminal_has_a_bar() -> None:
    said = lines(10, ["a"], ["a"] * 5, 5, terminal=True)
    assert "Evaluating pictures" in said and "━" in said and "5 of 5, 0 s left" in said


def test_the_amount_is_corrected_as_scenes_give_fewer() -> None:
    amount = Amount(["a", "b", "c", "d"], 12, varies=True)
    assert amount.total == 48
    assert amount.after("a", 1) == 48
    assert amount.after("b", 7) == 6 + 3 * 9  # of `a` 6 came, and 12 are supposed for one more
    assert amount.after("d", 13) == 12 + 6  # `b` gave 6 and `c` nothing: (12 + 12) / 4 a scene
    assert amount.after("d", 30) == 30


def test_an_amount_that_is_known_stays_whatever_the_order() -> None:
    said = lines(30, ["a", "b"], ["a", "b", "a", "b"], 2).splitlines()
    assert [line.split(",")[0].split(": ")[1] for line in said] == ["1 of 4", "2 of 4", "3 of 4", "4 of 4"]


def test_scenes_that_are_not_known_are_counted() -> None:
    said = lines(30, [], ["a", "b"], 0).splitlines()
    assert said == ["Evaluating pictures: 1", "Evaluating pictures: 2"]

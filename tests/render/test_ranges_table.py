from __future__ import annotations

import io
from dataclasses import dataclass

from rich.console import Console

from stabdiag.render.ranges import print_ranges


@dataclass
class Row:
    direction: str
    module: str
    low: float = -1.0
    high: float = 2.5
    rms: float = 0.5
    finite: int = 10
    nonfinite: int = 0


def printed(rows, width=120):
    stream = io.StringIO()
    print_ranges(rows, Console(file=stream, width=width, color_system=None))
    return stream.getvalue().splitlines()


def test_the_first_module_that_is_not_finite_is_marked_and_no_other():
    lines = printed(
        [Row("forward", "a"), Row("forward", "b", nonfinite=7), Row("backward", "b", nonfinite=7)]
    )
    marked = [line.split() for line in lines if "FIRST" in line]
    assert marked == [["b", "-1", "2.5", "0.5", "7", "FIRST"]]


def test_it_is_no_wider_than_80_columns_and_keeps_long_names_whole():
    name = "encoder.layers.11.self_attention.output_projection.dropout_after_everything"
    lines = printed([Row("forward", name, low=-1.23456e-12, high=9.87e30, nonfinite=123456789)])
    assert max(map(len, lines)) <= 80
    assert name in "".join(line[:26].strip() for line in lines[3:])


def test_of_values_none_of_which_is_finite_there_is_no_range():
    (line,) = (line for line in printed([Row("forward", "a", finite=0, nonfinite=3)]) if line.startswith("a"))
    assert line.split() == ["a", "-", "-", "-", "3", "FIRST"]

"""The pictures: every finite point is drawn inside the axes, a gap breaks the line, all names fit."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks.plots import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, line_plot, ticks

SVG = "{http://www.w3.org/2000/svg}"


def test_lines_lie_inside_the_axes_and_break_where_there_is_nothing(tmp_path: Path) -> None:
    xs = [0.0, 1000.0, 2000.0, 3000.0, 4000.0]
    path = tmp_path / "plot.svg"
    series = [("one & only", xs, [0.0, -50.0, math.nan, -200.0, -100.0]), ("other", xs, [-1.0] * 5)]
    line_plot(path, "A < B", "Hz", "dB", series, y_range=(-110, 6))
    drawing = ET.parse(path).getroot()
    lines = drawing.findall(f"{SVG}polyline")
    assert [len((line.get("points") or "").split()) for line in lines] == [5, 2, 2]  # the first series is on top
    for line in lines:
        for point in (line.get("points") or "").split():
            x, y = map(float, point.split(","))
            assert LEFT <= x <= WIDTH - RIGHT
            assert TOP <= y <= HEIGHT - BOTTOM
    texts = [text.text for text in drawing.findall(f"{SVG}text")]
    assert {"A < B", "Hz", "dB", "one & only", "other"} <= set(texts)
    assert {"0", "4000", "-100"} <= set(texts)


def test_round_numbers_cover_the_axis() -> None:
    assert ticks(0, 4000, 8) == [0, 500, 1000, 1500, 2000, 2500, 3000, 3500, 4000]
    assert ticks(-110, 6, 7) == [-100, -80, -60, -40, -20, 0]
    assert ticks(0.03, 0.09, 3) == pytest.approx([0.04, 0.06, 0.08])


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        line_plot(tmp_path / "plot.svg", "empty", "x", "y", [("none", [1.0], [math.nan])])

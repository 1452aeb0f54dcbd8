"""Line plots as small SVG files, because people would rather look than read.

Written by hand: a plotting library for a dozen polylines would be the largest dependency of the project. Ground is
transparent and every colour is of middle lightness, so that a picture reads on a light page and on a dark one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 800, 400
LEFT, RIGHT, TOP, BOTTOM = 66, 16, 64, 48
COLOURS = ("#2f81f7", "#e5534b", "#c69026", "#3a9d4b", "#a371f7", "#8b949e")
INK, GRID = "#808080", "#80808040"

Series = tuple[str, Sequence[float], Sequence[float]]
"""Name, x and y; a y that is not finite breaks the line."""


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return round numbers from low to high, at most `most` + 1 of them."""
    span = high - low
    step = 10.0 ** math.floor(math.log10(span / most))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if span / (step * factor) <= most)
    return [number * step for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _range(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low == high:
        return low - 0.5, high + 0.5
    return low, high


def _points(xs: Sequence[float], ys: Sequence[float]) -> list[str]:
    """Return the runs of finite points as the coordinates of polylines."""
    runs: list[list[str]] = [[]]
    for x, y in zip(xs, ys, strict=True):
        if math.isfinite(y):
            runs[-1].append(f"{x:.4g},{y:.4g}")
        elif runs[-1]:
            runs.append([])
    return [" ".join(run) for run in runs if run]


def line_plot(
    path: str | Path,
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[Series],
    *,
    y_range: tuple[float, float] | None = None,
) -> None:
    """Draw series as lines over common axes, with a legend, into an SVG file.

    Args:
        path: the file, replaced when it exists; its directory must exist.
        title: above the plot.
        x_label: below the plot, with its unit.
        y_label: beside the plot, with its unit.
        series: what is drawn, the first on top.
        y_range: lowest and highest y; what lies beyond is cut off. By default all that there is.

    Raises:
        ValueError: nothing to draw, or a series of unequal lengths.
    """
    finite = [(x, y) for _, xs, ys in series for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
    if not finite:
        raise ValueError(f"{title}: nothing to draw")
    x_low, x_high = _range([x for x, _ in finite])
    y_low, y_high = y_range or _range([y for _, y in finite])
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def across(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * width

    def down(y: float) -> float:
        if not math.isfinite(y):
            return math.nan
        return TOP + (y_high - min(max(y, y_low), y_high)) / (y_high - y_low) * height

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{INK}">',
        f"<title>{escape(title)}</title>",
        f'<text x="{LEFT}" y="20" font-size="15" font-weight="600">{escape(title)}</text>',
    ]
    for x in ticks(x_low, x_high, 8):
        lines.append(f'<path d="M{across(x):.4g} {TOP}v{height}" stroke="{GRID}"/>')
        lines.append(f'<text x="{across(x):.4g}" y="{TOP + height + 18}" text-anchor="middle">{x:g}</text>')
    for y in ticks(y_low, y_high, 7):
        lines.append(f'<path d="M{LEFT} {down(y):.4g}h{width}" stroke="{GRID}"/>')
        lines.append(f'<text x="{LEFT - 6}" y="{down(y) + 4:.4g}" text-anchor="end">{y:g}</text>')
    lines.append(f'<path d="M{LEFT} {TOP}v{height}h{width}" fill="none" stroke="{INK}"/>')
    lines.append(f'<text x="{LEFT + width / 2:g}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>')
    turned = f'text-anchor="middle" transform="rotate(-90 16 {TOP + height / 2:g})"'
    lines.append(f'<text x="16" y="{TOP + height / 2:g}" {turned}>{escape(y_label)}</text>')
    at = float(LEFT)
    for index, (name, _, _) in enumerate(series):
        colour = COLOURS[index % len(COLOURS)]
        lines.append(f'<path d="M{at:g} 42h18" stroke="{colour}" stroke-width="3"/>')
        lines.append(f'<text x="{at + 23:g}" y="46">{escape(name)}</text>')
        at += 23 + 6.1 * len(name) + 14
    for index, (_, xs, ys) in reversed(list(enumerate(series))):
        style = f'fill="none" stroke="{COLOURS[index % len(COLOURS)]}" stroke-width="1.6" stroke-linejoin="round"'
        runs = _points([across(x) for x in xs], [down(y) for y in ys])
        lines += [f'<polyline points="{points}" {style}/>' for points in runs]
    Path(path).write_text("\n".join([*lines, "</svg>", ""]), encoding="utf-8")

"""Make the resampler's coefficient tables, or check that the committed ones are what this program makes.

    python csrc/tables/gen_tables.py            write tp_resample_tables.h beside this file
    python csrc/tables/gen_tables.py --check    write nothing; exit 1 when the committed file differs

Two low-pass filters of continuous time serve every pair of rates, one upwards and one downwards; what a ratio needs are
samples of them. Time is counted in samples of the lower rate, so a band edge is a share of it: 0.425 is 3400 Hz where
that rate is 8 kHz. Upwards the stop band begins at 0.575 (4600 Hz: images of the telephone band), downwards at 0.5
(4000 Hz: what folds, folds from above half the new rate). Half widths are chosen for delay: 2 ms upwards and 4 ms
downwards at 8 kHz.

A filter is a short cosine series over its support, least squares on a grid of frequencies; the weight of the stop band
buys 87 dB there for 0.011 dB of ripple. Doubling a rate has a half-band filter of its own instead, whose even
coefficients are a plain delay: there least squares are weighted anew until all errors are equal, at 81 dB.

Rounding. Coefficients of 16 bits scaled for the largest stop at 75 dB. So every row is written twice: fine, at a scale
for the small coefficients, and over the 16 largest coarse, at a scale for those; the fine row has there what the coarse
one missed. The finest coefficient is then worth 2**-18 or less, and the two products meet in the kernel.

The common ratios have a row per phase, exact. All others (the family of 44.1 kHz, mostly) interpolate between rows of
finely sampled prototypes, in float, linearly: STEPS rows to a sample leave images 94 dB down.

Only the standard library is used.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

HEADER = Path(__file__).resolve().parent / "tp_resample_tables.h"

LANES = 8  # the kernels keep 8 partial sums: lane l has the coefficients 2l and 2l + 1 of every 16
BLOCK = 2 * LANES
COARSE_BITS = 14
STEPS = 96
STEP_BITS = 20
HALF_BAND_TAPS = 32


@dataclass(frozen=True)
class Prototype:
    """A symmetric low-pass filter of continuous time; times in samples, edges as shares, of the lower rate."""

    half_width: float
    pass_edge: float
    stop_edge: float
    n_terms: int
    stop_weight: float


UPWARDS = Prototype(47 / 3, 0.425, 0.575, 20, 1500)
DOWNWARDS = Prototype(31, 0.425, 0.5, 36, 1500)
EXACT = ((3, 1), (6, 1), (3, 2), (1, 2), (1, 3), (1, 6), (2, 3))


def sinc(x: float) -> float:
    """Return sin(pi x) / (pi x)."""
    return math.sin(math.pi * x) / (math.pi * x) if x else 1.0


def solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Solve a symmetric, positive definite system (Cholesky)."""
    n = len(right)
    lower = [[0.0] * n for _ in range(n)]
    for i in range(n):
        for j in range(i + 1):
            rest = matrix[i][j] - math.fsum(a * b for a, b in zip(lower[i][:j], lower[j][:j], strict=True))
            lower[i][j] = math.sqrt(rest) if i == j else rest / lower[j][j]
    half: list[float] = []
    for i in range(n):
        half.append((right[i] - math.fsum(a * b for a, b in zip(lower[i], half, strict=False))) / lower[i][i])
    solution = [0.0] * n
    for i in reversed(range(n)):
        known = math.fsum(lower[k][i] * solution[k] for k in range(i + 1, n))
        solution[i] = (half[i] - known) / lower[i][i]
    return solution


def least_squares(rows: list[list[float]], wanted: list[float], weights: list[float]) -> list[float]:
    """Return the unknowns for which the weighted sum of squares of rows @ unknowns - wanted is least."""
    n = len(rows[0])
    columns = list(zip(*rows, strict=True))
    weighted = [[w * x for w, x in zip(weights, column, strict=True)] for column in columns]
    matrix = [[0.0] * n for _ in range(n)]
    for i in range(n):
        for j in range(i + 1):
            matrix[i][j] = matrix[j][i] = math.fsum(map(float.__mul__, weighted[i], columns[j]))
    return solve(matrix, [math.fsum(map(float.__mul__, column, wanted)) for column in weighted])


def series_of(prototype: Prototype) -> list[float]:
    """Return the filter's cosine series: its value at time t is the sum of term k times cos(pi k t / half_width)."""
    width = 2 * prototype.half_width
    step = 1 / (4 * width)
    passed = [i * step for i in range(int(prototype.pass_edge / step))] + [prototype.pass_edge]
    stopped = [prototype.stop_edge + i * step for i in range(int((3 - prototype.stop_edge) / step))]
    rows = [
        [width / 2 * (sinc(width * f - k) + sinc(width * f + k)) for k in range(prototype.n_terms + 1)]
        for f in passed + stopped
    ]
    wanted = [1.0] * len(passed) + [0.0] * len(stopped)
    return least_squares(rows, wanted, [1.0] * len(passed) + [prototype.stop_weight] * len(stopped))


def value_at(prototype: Prototype, series: list[float], t: float) -> float:
    """Return the filter's value at time t; 0 outside its support."""
    if abs(t) > prototype.half_width + 1e-9:
        return 0.0
    return math.fsum(a * math.cos(math.pi * k * t / prototype.half_width) for k, a in enumerate(series))


def half_band_row() -> list[float]:
    """Return the odd coefficients of the half-band filter, times two: they make the sample between two inputs."""
    n = HALF_BAND_TAPS // 2
    grid = [0.425 * i / (12 * n) for i in range(12 * n + 1)]
    rows = [[2 * math.cos(2 * math.pi * f * (k + 0.5)) for k in range(n)] for f in grid]
    wanted, weights = [1.0] * len(grid), [1.0] * len(grid)
    for _ in range(40):
        half = least_squares(rows, wanted, weights)
        errors = [abs(math.fsum(map(float.__mul__, row, half)) - 1) for row in rows]
        weights = [w * e for w, e in zip(weights, errors, strict=True)]
        scale = len(weights) / math.fsum(weights)
        weights = [w * scale + 1e-9 for w in weights]
    return half[::-1] + half


def exact_rows(up: int, down: int, series: list[float]) -> tuple[list[list[float]], int]:
    """Return a row per phase, oldest input first, zeros in front up to whole blocks; and the delay in outputs."""
    prototype = UPWARDS if up > down else DOWNWARDS
    rate = max(up, down)
    delay = math.ceil(prototype.half_width * up / down - 1e-9) if up > down else round(prototype.half_width)
    centre = delay * down
    gain = min(up / down, 1.0)
    coefficients = [gain * value_at(prototype, series, (n - centre) / rate) for n in range(2 * centre + 1)]
    while coefficients[-1] == 0:
        coefficients.pop()
    rows = [coefficients[phase::up][::-1] for phase in range(up)]
    width = -(-max(map(len, rows)) // BLOCK) * BLOCK
    return [[0.0] * (width - len(row)) + row for row in rows], delay


def split(rows: list[list[float]], lanes: int) -> tuple[list[list[int]], int, int]:
    """Round each row to its fine part followed by its coarse block.

    Returns:
        The rows; the first coefficient that the coarse block covers; by how many bits fine is finer.

    Raises:
        ValueError: no scale keeps every sum in int32 on every input.
    """
    width = len(rows[0])

    def outside(first: int) -> float:
        return max(abs(x) for row in rows for x in row[:first] + row[first + BLOCK :])

    at = min(range(width - BLOCK + 1), key=outside)
    for bits in range(6, 2, -1):
        result = []
        for row in rows:
            coarse = [round(x * (1 << COARSE_BITS)) for x in row[at : at + BLOCK]]
            rest = list(row)
            for i, c in enumerate(coarse):
                rest[at + i] -= c / (1 << COARSE_BITS)
            result.append([round(x * (1 << COARSE_BITS + bits)) for x in rest] + coarse)
        if all(fits(row[:width], row[width:], bits, lanes) for row in result):
            return result, at, bits
    raise ValueError("no scale fits")


def fits(fine: list[int], coarse: list[int], bits: int, lanes: int) -> bool:
    """Tell whether no input can make a product sum leave int32, nor a coefficient int16."""

    def lane_sums(values: list[int]) -> list[int]:
        sums = [0] * lanes
        for i, value in enumerate(values):
            sums[i // 2 % lanes] += 32768 * abs(value)
        return sums

    fine_sums, coarse_sums = lane_sums(fine), lane_sums(coarse)
    together = [c + (f >> bits) + 1 for f, c in zip(fine_sums, coarse_sums, strict=True)]
    most = 0x7FFFFFFF - (1 << COARSE_BITS)
    return max(map(abs, fine + coarse)) <= 32767 and max(fine_sums) <= most and sum(together) <= most


def stepped_rows(prototype: Prototype, series: list[float], offsets: range) -> list[list[int]]:
    """Return the rows to interpolate between: row i has the filter's values at i / STEPS plus each offset.

    The last step to the support's end is left out, so that what lies between two rows ends there too.
    """

    def value(t: float) -> int:
        inside = abs(t) < prototype.half_width - 1 / STEPS + 1e-9
        return round(value_at(prototype, series, t) * (1 << STEP_BITS)) if inside else 0

    return [[value(i / STEPS + offset) for offset in offsets] for i in range(STEPS + 1)]


def table(declaration: str, rows: list[list[int]]) -> list[str]:
    """Return the lines of one table."""
    lines = [f"static const _Alignas(32) {declaration}[{len(rows) * len(rows[0])}] = {{"]
    for row in rows:
        lines += ["    " + " ".join(f"{value}," for value in row[i : i + BLOCK]) for i in range(0, len(row), BLOCK)]
    return [*lines, "};"]


def header() -> str:
    """Return the text of the header."""
    upwards, downwards = series_of(UPWARDS), series_of(DOWNWARDS)
    lines = [
        "/* Made by gen_tables.py in this directory; do not edit. Row = phase: TAPS fine coefficients, oldest input",
        " * first, zeros in front, then 16 coarse ones for the inputs from COARSE on. Coarse is scaled by COARSE_BITS",
        " * bits, fine by FINE more. DELAY is in output samples. */",
        "#ifndef TP_RESAMPLE_TABLES_H",
        "#define TP_RESAMPLE_TABLES_H",
        "#include <stdint.h>",
        "",
        f"#define TP_RESAMPLE_COARSE_BITS {COARSE_BITS}",
    ]
    exact = [(2, 1, [half_band_row()], HALF_BAND_TAPS - 1, 1)]
    exact += [(up, down, *exact_rows(up, down, upwards if up > down else downwards), LANES) for up, down in EXACT]
    for up, down, rows, delay, lanes in exact:
        rounded, coarse_at, finer = split(rows, lanes)
        name = f"{up}_{down}"
        lines += [
            "",
            f"#define TP_RESAMPLE_TAPS_{name} {len(rows[0])}",
            f"#define TP_RESAMPLE_COARSE_{name} {coarse_at}",
            f"#define TP_RESAMPLE_FINE_{name} {finer}",
            f"#define TP_RESAMPLE_DELAY_{name} {delay}",
            *table(f"int16_t tp_resample_taps_{name}", rounded),
        ]
    lines += [
        "",
        "/* To interpolate between: row i has the prototype's values at i / STEPS of a sample, scaled by STEP_BITS. */",
        f"#define TP_RESAMPLE_STEPS {STEPS}",
        f"#define TP_RESAMPLE_STEP_BITS {STEP_BITS}",
        "#define TP_RESAMPLE_UP_TAPS 32",
        "#define TP_RESAMPLE_DOWN_TAPS 64",
        *table("float tp_resample_up_rows", stepped_rows(UPWARDS, upwards, range(15, -17, -1))),
        *table("float tp_resample_down_rows", stepped_rows(DOWNWARDS, downwards, range(-31, 33))),
    ]
    return "\n".join([*lines, "", "#endif", ""])


def main(arguments: list[str]) -> int:
    """Write the header, or with --check compare it; return the exit status."""
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    text = header()
    if not arguments:
        HEADER.write_text(text)
        return 0
    if HEADER.exists() and HEADER.read_text() == text:
        return 0
    print(
        f"{HEADER.name} is not what gen_tables.py makes; run it without --check and commit the result", file=sys.stderr
    )
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

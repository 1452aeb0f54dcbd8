"""Make the resampler's coefficient tables, or check that the committed ones are what this program makes.

    python csrc/tables/gen_tables.py            write tp_resample_tables.h beside this file
    python csrc/tables/gen_tables.py --check    write nothing; exit 1 when the committed file differs

One low-pass prototype serves each kind of rate pair. It is a sinc under a Kaiser window whose cut-off lies a little
below the middle of the transition: the band's upper edge droops by 0.03 dB, which nobody hears, and that buys about
4 dB of attenuation at the same length. Rounding to int16 costs up to 5 dB; moving coefficient pairs by one unit, as
long as that lowers the excess over a target, wins most of it back.

Lengths are chosen for delay, a whole number of output samples: (length - 1) / 2 = delay * down, at most 2 ms towards
the higher rate and 4 ms towards the lower. A band edge is given as a share of the lower rate, so 0.425 is 3400 Hz
where that rate is 8 kHz. Upwards the stop band begins at 0.575 (4600 Hz: images of the telephone band), downwards at
0.5 (4000 Hz: what folds, folds from above half the new rate).

Only the standard library is used, and all that follows the first rounding is integer arithmetic, so that the same
table comes out on every machine.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

HEADER = Path(__file__).resolve().parent / "tp_resample_tables.h"

COSINE_BITS = 20
GRID = 6  # frequencies looked at, per coefficient; the first lies at the stop edge or just below
TARGETS_DB = (-79.0, -80.0, -81.0, -82.0, -83.0)  # each is tried; the table with the lowest peak is kept
LANES = 8  # the kernels keep 8 partial sums: lane l has the taps 2l and 2l + 1 of every 16
LANE_SHIFT = 3  # bits dropped from each lane before the lanes are added
BLOCK = 2 * LANES


@dataclass(frozen=True)
class Prototype:
    """A symmetric low-pass filter that runs at `rate` times the lower of two rates; edges are shares of that rate."""

    length: int
    rate: int
    stop_edge: float
    cut_off: float
    beta: float
    sum_bits: int
    """The coefficients sum to rate << sum_bits where the filter interpolates, to 1 << sum_bits where not."""
    interpolates: bool


@dataclass(frozen=True)
class Pair:
    """One ratio of rates and the prototype that serves it."""

    up: int
    down: int
    prototype: str


# Cut-off (here in Hz of a lower rate of 8000) and beta: the best of a scan over both that keeps ripple <= 0.035 dB.
PROTOTYPES = {
    "up_2": Prototype(63, 2, 0.575, 3935 / 8000, 7.4, 15, True),
    "up_3": Prototype(95, 3, 0.575, 3945 / 8000, 7.8, 15, True),
    "up_3_by_2": Prototype(93, 3, 0.575, 3940 / 8000, 7.4, 15, True),
    "up_6": Prototype(191, 6, 0.575, 3945 / 8000, 7.8, 15, True),
    "down_2": Prototype(125, 2, 0.5, 3675 / 8000, 7.8, 16, False),
    "down_3": Prototype(187, 3, 0.5, 3670 / 8000, 7.6, 16, False),
    "down_6": Prototype(373, 6, 0.5, 3675 / 8000, 7.8, 17, False),
}

PAIRS = (
    Pair(2, 1, "up_2"),
    Pair(3, 1, "up_3"),
    Pair(3, 2, "up_3_by_2"),
    Pair(6, 1, "up_6"),
    Pair(1, 2, "down_2"),
    Pair(1, 3, "down_3"),
    Pair(2, 3, "down_3"),
    Pair(1, 6, "down_6"),
)


def bessel_i0(x: float) -> float:
    """Return the modified Bessel function of order zero, by its power series."""
    total = term = 1.0
    k = 1
    while term > total * 1e-18:
        term *= (x / (2 * k)) ** 2
        total += term
        k += 1
    return total


def exact_half(prototype: Prototype) -> list[float]:
    """Return the coefficients from the centre outwards, before rounding, scaled to their fixed point."""
    centre = (prototype.length - 1) // 2
    half = []
    for k in range(centre + 1):
        angle = 2 * math.pi * prototype.cut_off / prototype.rate * k
        sinc = math.sin(angle) / angle if k else 1.0
        half.append(sinc * bessel_i0(prototype.beta * math.sqrt(1 - (k / centre) ** 2)))
    unity = (prototype.rate if prototype.interpolates else 1) << prototype.sum_bits
    scale = unity / (half[0] + 2 * math.fsum(half[1:]))
    return [value * scale for value in half]


def rounded_half(prototype: Prototype) -> list[int]:
    """Return the int16 coefficients from the centre outwards: rounded, then moved by units to lower the stop band."""
    exact = exact_half(prototype)
    start = [round(value) for value in exact]
    points = GRID * (len(exact) - 1)  # on (0, half the filter's rate]
    cosine = [round(math.cos(math.pi * i / points) * (1 << COSINE_BITS)) for i in range(2 * points)]
    grid = range(math.floor(2 * points * prototype.stop_edge / prototype.rate), points + 1)
    waves = [[(2 if k else 1) * cosine[g * k % (2 * points)] for g in grid] for k in range(len(exact))]
    unity = (prototype.rate if prototype.interpolates else 1) << prototype.sum_bits

    def excess(response: list[int], bound: int) -> int:
        return sum((abs(r) - bound) ** 2 for r in response if r > bound or r < -bound)

    best_peak, best = None, start
    for target_db in TARGETS_DB:
        bound = round(unity * 10 ** (target_db / 20) * (1 << COSINE_BITS))
        half = list(start)
        response = [sum(c * wave[i] for c, wave in zip(half, waves, strict=True)) for i in range(len(grid))]
        cost, moved = excess(response, bound), True
        while cost and moved:
            moved = False
            for k, wave in enumerate(waves):
                for step in (1, -1):
                    if abs(half[k] + step - start[k]) > 1:
                        continue
                    trial = [r + step * w for r, w in zip(response, wave, strict=True)]
                    trial_cost = excess(trial, bound)
                    if trial_cost < cost:
                        cost, response, moved = trial_cost, trial, True
                        half[k] += step
                        break
        peak = max(abs(r) for r in response)
        if best_peak is None or peak < best_peak:
            best_peak, best = peak, half
    return best


def phases(coefficients: list[int], up: int) -> list[list[int]]:
    """Split into one row per phase, oldest input first, zeros in front up to a whole number of blocks.

    Raises:
        ValueError: a lane, or the sum of the lanes, could leave int32 on some input.
    """
    rows = [coefficients[phase::up][::-1] for phase in range(up)]
    width = -(-max(map(len, rows)) // BLOCK) * BLOCK
    rows = [[0] * (width - len(row)) + row for row in rows]
    for row in rows:
        if max(map(abs, row)) > 32767:
            raise ValueError("a coefficient does not fit int16")
        lanes = [
            sum(abs(row[b + 2 * lane]) + abs(row[b + 2 * lane + 1]) for b in range(0, width, BLOCK))
            for lane in range(LANES)
        ]
        if max(lanes) * 32768 > 0x7FFFFFFF or sum((lane * 32768 >> LANE_SHIFT) + 1 for lane in lanes) > 0x7FFF0000:
            raise ValueError("a partial sum does not fit int32")
    return rows


def header() -> str:
    """Return the text of the header."""
    halves = {name: rounded_half(prototype) for name, prototype in PROTOTYPES.items()}
    lines = [
        "/* Made by gen_tables.py in this directory; do not edit. Row = phase, oldest input first, zeros in front.",
        f" * A product sum is kept in {LANES} lanes, each shifted right by TP_RESAMPLE_LANE_SHIFT before they are",
        " * added; SHIFT is what remains to unity. DELAY is in output samples. */",
        "#ifndef TP_RESAMPLE_TABLES_H",
        "#define TP_RESAMPLE_TABLES_H",
        "#include <stdint.h>",
        "",
        f"#define TP_RESAMPLE_LANE_SHIFT {LANE_SHIFT}",
    ]
    for pair in PAIRS:
        half = halves[pair.prototype]
        prototype = PROTOTYPES[pair.prototype]
        delay, rest = divmod(len(half) - 1, pair.down)
        if rest:
            raise ValueError("the delay is not a whole number of output samples")
        # A prototype that does not interpolate loses one bit of scale for every doubling of the input's rate.
        bits = prototype.sum_bits if prototype.interpolates else prototype.sum_bits - (pair.up.bit_length() - 1)
        rows = phases(half[:0:-1] + half, pair.up)
        name = f"{pair.up}_{pair.down}"
        lines += [
            "",
            f"#define TP_RESAMPLE_TAPS_{name} {len(rows[0])}",
            f"#define TP_RESAMPLE_DELAY_{name} {delay}",
            f"#define TP_RESAMPLE_SHIFT_{name} {bits - LANE_SHIFT}",
            f"static const _Alignas(32) int16_t tp_resample_taps_{name}[{len(rows) * len(rows[0])}] = {{",
        ]
        for row in rows:
            lines += ["    " + " ".join(f"{value}," for value in row[i : i + BLOCK]) for i in range(0, len(row), BLOCK)]
        lines.append("};")
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

"""Make the tone detector's tables, or check that the committed ones are what this program makes.

    python csrc/tables/gen_tone_tables.py            write tp_tone_tables.h beside this file
    python csrc/tables/gen_tone_tables.py --check    write nothing; exit 1 when the committed file differs

A window of 10 ms (the second half of a Hann window, as a share of 2^15); from its middle on, the eight tones as cosine
and sine (2^13) and an orthonormal basis of what a dial tone of 350 and 440 Hz can be under the window (2^15), by Gram
and Schmidt, its even and its odd members; and for each tone how far its phase turns from one window to the next, 5 ms
later, and in one sample.

Only the standard library is used; what is rounded lies far from a half, so the same table comes out on every machine.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

HEADER = Path(__file__).resolve().parent / "tp_tone_tables.h"
RATE_HZ, WINDOW, HOP, HALF = 8000, 80, 40, 40
TONES_HZ = (697, 770, 852, 941, 1209, 1336, 1477, 1633)
DIAL_HZ = (350, 440)
TOLERANCE = 0.024
"""Between the 1.8 % that must be accepted and the 3.0 % that must be rejected."""


def window() -> list[float]:
    """A Hann window whose halves add up to one."""
    return [0.5 - 0.5 * math.cos(2 * math.pi * (n + 0.5) / WINDOW) for n in range(WINDOW)]


def waves(frequency_hz: float) -> tuple[list[float], list[float]]:
    """Cosine and sine over the second half of a window, phase 0 in its middle."""
    phases = [2 * math.pi * frequency_hz / RATE_HZ * (n + 0.5) for n in range(HALF)]
    return [math.cos(phase) for phase in phases], [math.sin(phase) for phase in phases]


def dial_basis(part: int) -> list[list[float]]:
    """Sequences over half a window; mirrored they are orthonormal and span a dial tone's cosines, or sines."""
    basis: list[list[float]] = []
    for frequency_hz in DIAL_HZ:
        rest = [w * x for w, x in zip(window()[HALF:], waves(frequency_hz)[part], strict=True)]
        for one in basis:
            share = 2 * math.fsum(a * b for a, b in zip(one, rest, strict=True))
            rest = [a - share * b for a, b in zip(rest, one, strict=True)]
        norm = math.sqrt(2 * math.fsum(a * a for a in rest))
        basis.append([a / norm for a in rest])
    return basis


def rows(values: list[float], scale: int) -> str:
    """Rounded, sixteen to a line."""
    whole = [min(round(value * scale), 32767) for value in values]
    return ",\n        ".join(", ".join(map(str, whole[i : i + 16])) for i in range(0, len(whole), 16))


def header() -> str:
    """The whole file."""
    tones = ",\n".join(
        f"    {{{{{rows(cosine, 8192)}}},\n     {{{rows(sine, 8192)}}}}}" for cosine, sine in map(waves, TONES_HZ)
    )
    dial = ",\n".join(f"    {{{rows(one, 32768)}}}" for part in (0, 1) for one in dial_basis(part))
    turns = ",\n".join(
        f"    {{{math.cos(turn):.9f}f, {math.sin(turn):.9f}f, {math.cos(most):.9f}f}}"
        for turn, most in (
            (2 * math.pi * hz * HOP / RATE_HZ, 2 * math.pi * hz * TOLERANCE * HOP / RATE_HZ) for hz in TONES_HZ
        )
    )
    steps = ",\n".join(
        "    {" + ", ".join(f"{{{math.cos(turn):.14f}, {math.sin(turn):.14f}}}" for turn in per_rate) + "}"
        for per_rate in ([2 * math.pi * hz / rate_hz for hz in TONES_HZ] for rate_hz in (RATE_HZ, 2 * RATE_HZ))
    )
    return f"""/* Made by gen_tone_tables.py; not to be edited. */
#ifndef TP_TONE_TABLES_H
#define TP_TONE_TABLES_H
#include <stdint.h>

#define TP_TONE_WINDOW {WINDOW}
#define TP_TONE_HOP {HOP}
#define TP_TONE_HALF {HALF}

static const int16_t tp_tone_window[TP_TONE_HALF] = {{
        {rows(window()[HALF:], 32767)}}};
/* 697 770 852 941 1209 1336 1477 1633 Hz: cosine, sine */
static const int16_t tp_tone_waves[8][2][TP_TONE_HALF] = {{
{tones}}};
/* Two even, two odd. */
static const int16_t tp_tone_dial[4][TP_TONE_HALF] = {{
{dial}}};
/* Per tone: the turn of its phase in one hop, as cosine and sine, and the cosine of how much further it may turn. */
static const struct {{ float turn_cos, turn_sin, most_cos; }} tp_tone_turns[8] = {{
{turns}}};
/* At 8 and at 16 kHz, per tone: cosine and sine of one sample's turn. */
static const double tp_tone_steps[2][8][2] = {{
{steps}}};
#endif
"""


def main() -> int:
    """Write, or check."""
    made = header()
    if "--check" in sys.argv[1:]:
        if HEADER.exists() and HEADER.read_text() == made:
            return 0
        print(f"{HEADER.name} is not what gen_tone_tables.py makes", file=sys.stderr)
        return 1
    HEADER.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())

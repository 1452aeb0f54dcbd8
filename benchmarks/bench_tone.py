"""The digit detector beside spandsp's: ITU-T Q.24's limits one by one, talk-off on recorded speech, and speed.

spandsp (LGPL, a system library) is asked through cffi as a Python program would ask it, with its own defaults and with
its dial tone filter. Prompts are those of Debian's asterisk-core-sounds packages, as far as they are installed; without
them talk-off is left out.
"""

from __future__ import annotations

import math
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
from cffi import FFI

from benchmarks import timing
from benchmarks.report import print_table, progress
from benchmarks.signals import Pcm, speech_like
from benchmarks.timing import Candidate, Row
from talkpath._native import ffi, lib
from talkpath.dsp import ToneDetector, dtmf
from talkpath.dsp.tone import DTMF_COLUMNS_HZ, DTMF_ROWS_HZ

PROMPTS = Path("/usr/share/asterisk/sounds")
KEYS = "123A456B789C*0#D"
FRAME = 160
Wave = npt.NDArray[np.float64]
Find = Callable[[Pcm], str]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to try."""

    trials: int = 20
    """Of every key at every limit."""
    noisy: int = 10_000
    speech_min: float = 240.0
    effort: timing.Effort = timing.FULL


FULL = Plan()
SHORT = Plan(trials=1, noisy=32, speech_min=1.0, effort=timing.SHORT)


class Spandsp:
    """spandsp's receiver; None where the library is not installed."""

    def __init__(self) -> None:
        self.ffi: Any = FFI()
        self.ffi.cdef("""
            void *dtmf_rx_init(void *s, void *callback, void *user);
            void dtmf_rx_parms(void *s, int filter_dialtone, int twist, int reverse_twist, int threshold);
            int dtmf_rx(void *s, const int16_t *amp, int samples);
            size_t dtmf_rx_get(void *s, char *buf, int max);
            int dtmf_rx_free(void *s);
        """)
        self.lib: Any = self.ffi.dlopen("libspandsp.so.2")

    def find(self, samples: Pcm, *, filter_dial_tone: bool = False) -> str:
        """Return the digits in a recording, given frame by frame."""
        state = self.lib.dtmf_rx_init(self.ffi.NULL, self.ffi.NULL, self.ffi.NULL)
        if filter_dial_tone:
            self.lib.dtmf_rx_parms(state, 1, -1, -1, -99)
        buffer, out = self.ffi.from_buffer("int16_t[]", samples), self.ffi.new("char[]", 129)
        digits = b""
        for at in range(0, len(samples), FRAME):
            self.lib.dtmf_rx(state, buffer + at, min(FRAME, len(samples) - at))
            if self.lib.dtmf_rx_get(state, out, 128):
                digits += self.ffi.string(out)
        self.lib.dtmf_rx_free(state)
        return digits.decode()


def open_spandsp() -> Spandsp | None:
    """Find the peer, or none."""
    try:
        return Spandsp()
    except OSError:
        return None


def find_ours(samples: Pcm) -> str:
    """Return the digits in a recording."""
    return "".join(event.digit for event in ToneDetector().process(samples) if not event.ended)


def _peak(dbm0: float) -> float:
    return float(32768 * 10 ** ((dbm0 - 3.14) / 20))


@dataclass(frozen=True, slots=True)
class Limit:
    """One of Q.24's; what is made of each key, and how many digits are to be found."""

    name: str
    whose: str
    digits: int = 1
    ms: float = 40.0
    pause_ms: float = 0.0
    row_dbm0: float = -10.0
    column_dbm0: float = -10.0
    row_off: float = 0.0
    column_off: float = 0.0
    snr_db: float = math.inf
    dial_dbm0: float = -math.inf
    echo_db: float = -math.inf


LIMITS = (
    Limit("40 ms", "all", ms=40),
    Limit("24 ms", "NTT; AT&T 23", 0, ms=24),
    Limit("+1.5 % and 2 Hz", "Denmark; AT&T 1.5 %", row_off=0.015 + 2 / 697, column_off=0.015 + 2 / 1209),
    Limit("-1.8 %", "NTT, Brazil", row_off=-0.018, column_off=-0.018),
    Limit("row +3.0 %, 200 ms", "NTT, Brazil", 0, row_off=0.03, ms=200),
    Limit("column -3.0 %, 200 ms", "NTT, Brazil", 0, column_off=-0.03, ms=200),
    Limit("row -3.5 %, 200 ms", "AT&T", 0, row_off=-0.035, ms=200),
    Limit("column +3.5 %, 200 ms", "AT&T", 0, column_off=0.035, ms=200),
    Limit("0 dBm0 each", "AT&T", row_dbm0=0, column_dbm0=0),
    Limit("-25 dBm0 each", "AT&T, Brazil; NTT -24", row_dbm0=-25, column_dbm0=-25),
    Limit("-27 dBm0 each", "Australia, Denmark", row_dbm0=-27, column_dbm0=-27),
    Limit("-29 dBm0 each", "NTT", 0, row_dbm0=-29, column_dbm0=-29),
    Limit("column 8 dB weaker", "AT&T", column_dbm0=-18),
    Limit("column 4 dB stronger", "AT&T", row_dbm0=-14),
    Limit("column 10 dB weaker", "Australia", column_dbm0=-20),
    Limit("column 10 dB stronger", "Australia", row_dbm0=-20),
    Limit("pause 30 ms", "NTT, Brazil", 2, pause_ms=30),
    Limit("pause 40 ms", "AT&T, Denmark", 2, pause_ms=40),
    Limit("interruption 10 ms", "NTT, AT&T, Brazil", ms=60, pause_ms=10),
    Limit("interruption 12 ms", "Australia", ms=60, pause_ms=12),
    Limit("white noise at -15 dB, 50 ms", "", ms=50, snr_db=15),
    Limit("white noise at -12 dB, 50 ms", "", ms=50, snr_db=12),
    Limit("dial tone as loud", "", ms=50, dial_dbm0=-10),
    Limit("dial tone 6 dB louder", "", ms=50, row_dbm0=-16, column_dbm0=-16, dial_dbm0=-10),
    Limit("echo, 20 ms and -10 dB", "AT&T", ms=60, echo_db=-10),
)


def make(limit: Limit, digit: str, rng: np.random.Generator) -> Pcm:
    """One try: the digit once or twice, at a phase and place of its own."""
    row, column = divmod(KEYS.index(digit), 4)

    def press() -> Wave:
        t = np.arange(int(limit.ms * 8)) / 8000
        low, high = DTMF_ROWS_HZ[row] * (1 + limit.row_off), DTMF_COLUMNS_HZ[column] * (1 + limit.column_off)
        first = _peak(limit.row_dbm0) * np.sin(2 * np.pi * low * t + rng.uniform(0, 7))
        return np.asarray(first + _peak(limit.column_dbm0) * np.sin(2 * np.pi * high * t + rng.uniform(0, 7)))

    pieces = [np.zeros(400 + int(rng.integers(0, 160))), press()]
    if limit.pause_ms:
        pieces += [np.zeros(int(limit.pause_ms * 8)), press()]
    signal = np.concatenate([*pieces, np.zeros(800)])
    if limit.echo_db > -math.inf:
        signal[FRAME:] += signal[:-FRAME] * 10 ** (limit.echo_db / 20)
    if limit.snr_db < math.inf:
        power = (_peak(limit.row_dbm0) ** 2 + _peak(limit.column_dbm0) ** 2) / 2
        signal += rng.normal(0, math.sqrt(power / 10 ** (limit.snr_db / 10)), len(signal))
    t = np.arange(len(signal)) / 8000
    for hz in (350, 440):
        signal += _peak(limit.dial_dbm0) * np.sin(2 * np.pi * hz * t + rng.uniform(0, 7))
    pcm: Pcm = np.clip(np.rint(signal), -32768, 32767).astype(np.int16)
    return pcm


def share(limit: Limit, find: Find, trials: int) -> float:
    """How many tries end as Q.24 has it, in per cent."""
    rng = np.random.default_rng(24)
    right = sum(find(make(limit, digit, rng)) == digit * limit.digits for digit in KEYS for _ in range(trials))
    return 100 * right / (16 * trials)


def prompts(most_min: float) -> Iterator[tuple[str, Pcm]]:
    """(voice, audio) of installed prompts, each file once, the voices in turns."""
    voices = sorted(path for path in PROMPTS.glob("*") if path.is_dir() and not path.is_symlink())
    files = {voice.name: sorted(set(voice.rglob("*.wav"))) for voice in voices}
    left = most_min * 60 * 8000
    for index in range(max(map(len, files.values()), default=0)):
        for voice, paths in files.items():
            if index < len(paths) and left > 0:
                with wave.open(str(paths[index])) as one:
                    if (one.getframerate(), one.getsampwidth(), one.getnchannels()) == (8000, 2, 1):
                        samples = np.frombuffer(one.readframes(one.getnframes()), np.int16)
                        left -= len(samples)
                        yield voice, samples


def talk_off(finders: dict[str, Find], most_min: float) -> dict[str, Any]:
    """Digits found where nobody pressed a key."""
    minutes: dict[str, float] = {}
    hits: dict[str, int] = dict.fromkeys(finders, 0)
    for voice, samples in prompts(most_min):
        minutes[voice] = minutes.get(voice, 0) + len(samples) / 480_000
        for name, find in finders.items():
            hits[name] += len(find(samples))
    each = {voice: round(length, 1) for voice, length in minutes.items()}
    return {"minutes": round(sum(minutes.values()), 1), "voices": each, "hits": hits}


def rows(peer: Spandsp | None) -> list[Row]:
    """A frame of 20 ms: speech, keys, silence."""
    speech = np.concatenate([samples for _, samples in prompts(1.0)] or [speech_like(10)])
    keys = np.concatenate([dtmf(KEYS, level_dbov=-15), np.zeros(800, np.int16)])
    quiet = np.zeros(8000, np.int16)
    return [
        _row("digits in speech, a second a call, per frame", speech, peer, 50),
        _row("digits in speech, frame a call", speech, peer),
        _row("digits in keys, frame a call", keys, peer),
        _row("digits in silence, frame a call", quiet, peer),
    ]


def _row(name: str, samples: Pcm, peer: Spandsp | None, together: int = 1) -> Row:
    n = FRAME * together
    frames = [samples[at : at + n] for at in range(0, len(samples) - n + 1, n)]
    count = len(frames) * together
    held = [ffi.new("int16_t[]", frame.tolist()) for frame in frames]
    state, event = ffi.new("tp_tone *"), ffi.new("tp_tone_event *")
    lib.tp_tone_init(state, 8000)
    receive = lib.tp_tone_receive
    detector = ToneDetector()

    def run() -> None:
        for frame in held:
            taken = receive(state, event, frame, n)
            while taken < n:
                taken += receive(state, event, frame + taken, n - taken)

    def run_public() -> None:
        for frame in frames:
            detector.process(frame)

    peers = [Candidate("talkpath.dsp.ToneDetector", run_public, count)]
    if peer is not None:
        theirs = peer.lib.dtmf_rx_init(peer.ffi.NULL, peer.ffi.NULL, peer.ffi.NULL)
        given = [peer.ffi.new("int16_t[]", frame.tolist()) for frame in frames]
        found, dtmf_rx, dtmf_rx_get = peer.ffi.new("char[]", 129), peer.lib.dtmf_rx, peer.lib.dtmf_rx_get

        def run_spandsp() -> None:
            for frame in given:
                dtmf_rx(theirs, frame, n)
            dtmf_rx_get(theirs, found, 128)

        peers.append(Candidate("spandsp dtmf_rx", run_spandsp, count))
    return Row(name, Candidate("talkpath", run, count), peers, {"spandsp": 3})


def run(plan: Plan) -> dict[str, Any]:
    """Measure all three."""
    peer = open_spandsp()
    finders: dict[str, Find] = {"talkpath": find_ours}
    if peer is not None:
        finders["spandsp"] = peer.find
        finders["spandsp, dial tone filter"] = lambda samples: peer.find(samples, filter_dial_tone=True)
    limits: list[dict[str, Any]] = []
    for limit in LIMITS:
        progress(f"digits: {limit.name}")
        found = {name: share(limit, find, plan.trials) for name, find in finders.items()}
        limits.append({"limit": limit.name, "whose": limit.whose, "digits": limit.digits, "right %": found})
    noisy = next(limit for limit in LIMITS if limit.snr_db == 15)
    progress(f"digits: {plan.noisy} in noise")
    of = plan.noisy // 16 * 16
    missed = {name: round(of * (1 - share(noisy, find, plan.noisy // 16) / 100)) for name, find in finders.items()}
    progress("digits: talk-off")
    return {
        "limits": limits,
        "noise": {"of": of, "missed": missed},
        "talk_off": talk_off(finders, plan.speech_min),
        "speed": timing.measure(rows(peer), plan.effort),
    }


def show(result: dict[str, Any], to: TextIO) -> None:
    """Print the tables."""
    names = list(result["talk_off"]["hits"])
    lines = [
        [each["limit"], each["whose"], str(each["digits"]), *(f"{each['right %'][name]:.1f}" for name in names)]
        for each in result["limits"]
    ]
    noise, speech = result["noise"], result["talk_off"]
    lines.append([f"missed of {noise['of']}, -15 dB", "", "", *(str(noise["missed"][name]) for name in names)])
    lines.append(
        [f"found in {speech['minutes']} min of speech", "", "", *(str(speech["hits"][name]) for name in names)]
    )
    print_table("digits: right, % of tries", ("limit of ITU-T Q.24", "whose", "digits", *names), lines, to)
    timing.show("digit detector", result["speed"], to)

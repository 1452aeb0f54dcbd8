"""Voice activity: what it hears, what it is fooled by, how late it is, and what it costs, beside webrtcvad.

Quality is measured on prompts of five speakers (Debian's asterisk-core-sounds, one man among them; the thresholds were
chosen on en, it and fr, es and ru are the test), pauses of 1 to 3 s between them, at -26 dBov while somebody speaks,
with seeded noises at several distances below that. A 20 ms frame is speech where the clean prompt lies within 25 dB of
its loud fifth. Every detector gets the same time to decide (80 ms of evidence) and to let go (240 ms), so the figures
are the decisions of whoever would stop a voice on them:

* hit: share of the speech frames in which somebody is said to speak (the 80 ms cost some three per cent of these);
* false: share of the frames further than 0.5 s from speech in which somebody is said to speak, and how often that
  begins in a minute;
* onset: from the first frame of an utterance to the decision, median and the slowest tenth; missed: utterances without.

Cost is one fused call over a minute of speech and pauses in noise, a frame, beside webrtcvad's call per frame; and our
public call per frame. Prompts and peers that are not installed are left out by name.
"""

from __future__ import annotations

import random
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from benchmarks import timing
from benchmarks.peers import find_peer
from benchmarks.report import number, print_table, progress
from benchmarks.signals import frames_of
from benchmarks.timing import Candidate, Row
from talkpath._native import ffi, lib
from talkpath.dsp import VoiceActivity

Floats = npt.NDArray[np.float64]
Pcm = npt.NDArray[np.int16]
Bools = npt.NDArray[np.bool_]

PROMPTS = Path("/usr/share/asterisk/sounds")
VOICES = {
    "en": "en_US_f_Allison",
    "it": "it_IT_m_Carlo",
    "fr": "fr_CA_f_June",
    "es": "es_MX_f_Allison",
    "ru": "ru_RU_f_IvrvoiceRU",
}
TUNED_ON = ("en", "it", "fr")
CONDITIONS = (
    ("none", 60),
    ("white", 20),
    ("white", 10),
    ("white", 5),
    ("pink", 20),
    ("pink", 10),
    ("hum", 15),
    ("hum", 5),
    ("babble", 15),
    ("babble", 10),
    ("slams", 10),
    ("slams", 0),
)
"""(noise, dB below the speech); slams by their peaks, 12 dB nearer."""
RATE = 8000
FRAME = 160
SPEECH_DBOV = -26
ONSET_FRAMES, HANGOVER_FRAMES = 4, 12
GUARD_FRAMES = 25

Detector = Callable[[Pcm], Bools]


def prompts(voice: str, seed: int, count: int) -> list[Floats]:
    """Choose prompts of 1 to 6 s."""
    paths = sorted((PROMPTS / VOICES[voice]).glob("*.wav"))
    random.Random(seed).shuffle(paths)
    chosen: list[Floats] = []
    for path in paths:
        with wave.open(str(path)) as file:
            if file.getframerate() != RATE or file.getnchannels() != 1:
                continue
            audio = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float64)
        if RATE <= len(audio) <= 6 * RATE and np.abs(audio).max() > 3000:
            chosen.append(audio[: len(audio) // FRAME * FRAME])
        if len(chosen) == count:
            break
    return chosen


def _powers(audio: Floats) -> Floats:
    return np.asarray((audio.reshape(-1, FRAME) ** 2).mean(axis=1))


def speech_with_pauses(voice: str, seed: int, count: int) -> tuple[Floats, Bools, list[tuple[int, int]]]:
    """Lay prompts one after the other; -> audio, which frames are speech, first and last frame of each utterance."""
    rng = np.random.default_rng(seed)
    pieces, labels = [np.zeros(2 * RATE)], [np.zeros(100, np.bool_)]
    utterances: list[tuple[int, int]] = []
    at = 100
    for audio in prompts(voice, seed, count):
        powers = _powers(audio)
        speech = powers > np.sort(powers)[-max(1, len(powers) // 5) :].mean() * 10 ** (-25 / 10)
        audio = audio * (32768 * 10 ** (SPEECH_DBOV / 20) / np.sqrt(powers[speech].mean()))
        where = np.flatnonzero(speech)
        utterances.append((at + int(where[0]), at + int(where[-1]) + 1))
        pause = int(rng.integers(50, 150))
        pieces += [audio, np.zeros(pause * FRAME)]
        labels += [speech, np.zeros(pause, np.bool_)]
        at += len(speech) + pause
    return np.concatenate(pieces), np.concatenate(labels), utterances


def _coloured(rng: np.random.Generator, n: int, exponent: float) -> Floats:
    spectrum = np.fft.rfft(rng.standard_normal(n))
    noise = np.fft.irfft(spectrum / (np.arange(len(spectrum)) + n / 800) ** exponent, n)
    return np.asarray(noise / noise.std())


def _babble(rng: np.random.Generator, n: int, but: str) -> Floats:
    """Eight talkers of the other voices at once, without a pause among them."""
    others = [voice for voice in VOICES if voice != but and (PROMPTS / VOICES[voice]).is_dir()]
    total = np.zeros(n)
    for i in range(8):
        talk = np.concatenate(prompts(others[i % len(others)], 100 + i, 40))
        talk = np.tile(talk, n // len(talk) + 1)
        total += np.roll(talk, int(rng.integers(len(talk))))[:n] / talk.std()
    return np.asarray(total / total.std())


def _slams(rng: np.random.Generator, n: int) -> Floats:
    """Bursts of 30 to 250 ms that die away, every other one dull."""
    total = np.zeros(n)
    at = RATE // 2
    while at < n - RATE:
        length = int(rng.uniform(0.03, 0.25) * RATE)
        burst = np.exp(-np.arange(length) / (length / 4)) * rng.standard_normal(length)
        if rng.random() < 0.5:
            burst = np.convolve(burst, np.ones(6) / 6, "same")
        total[at : at + length] += 4 * burst / np.abs(burst).max()
        at += int(rng.uniform(0.3, 1.5) * RATE)
    return total


def noise(kind: str, n: int, seed: int, voice: str) -> Floats:
    """Make a noise; of power 1, but slams, whose peaks are 4."""
    rng = np.random.default_rng(seed)
    if kind == "babble":
        return _babble(rng, n, voice)
    if kind == "slams":
        return _slams(rng, n)
    if kind == "hum":  # an office: mains and its harmonics, air, slowly louder and softer
        at = np.arange(n) / RATE
        total = 0.5 * _coloured(rng, n, 1.0) + 0.15 * rng.standard_normal(n)
        for k, weight in ((1, 1.0), (2, 0.6), (3, 0.5), (5, 0.3), (7, 0.15)):
            total += weight * np.sin(2 * np.pi * 50 * k * at + rng.uniform(0, 6))
        total *= 1 + 0.2 * np.sin(2 * np.pi * 0.3 * at)
        return np.asarray(total / total.std())
    return _coloured(rng, n, {"none": 0.0, "white": 0.0, "pink": 0.5}[kind])


def noisy(clean: Floats, kind: str, snr_db: float, seed: int, voice: str) -> Pcm:
    """Add a noise so far below the speech."""
    total = clean + noise(kind, len(clean), seed, voice) * 32768 * 10 ** ((SPEECH_DBOV - snr_db) / 20)
    if kind == "slams":
        total += noise("white", len(clean), seed, voice) * 3
    return np.clip(np.rint(total), -32768, 32767).astype(np.int16)


def debounced(raw: Bools) -> Bools:
    """Turn a detector's frames into decisions with the onset and hangover that ours has."""
    decisions = np.zeros(len(raw), np.bool_)
    evidence = left = 0
    for i, speech in enumerate(raw):
        if left:
            left = HANGOVER_FRAMES + 1 if speech else left - 1
            evidence = evidence if left else 0
        else:
            evidence = max(0, evidence + (1 if speech else -1))
            left = HANGOVER_FRAMES + 1 if evidence >= ONSET_FRAMES else 0
        decisions[i] = left > 0
    return decisions


def _ours(audio: Pcm) -> Bools:
    activity = VoiceActivity(RATE, onset_ms=20 * ONSET_FRAMES, hangover_ms=20 * HANGOVER_FRAMES)
    return np.array([activity.process(frame) >= 2 for frame in frames_of(audio, RATE)])


def _energy(audio: Pcm) -> Bools:
    return debounced(_powers(audio.astype(np.float64)) > 2**30 * 10 ** (-35 / 10))


def detectors() -> dict[str, Detector]:
    """Ours, a threshold of -35 dBov (`EnergyGate`'s), and webrtcvad's two strictest modes."""
    found: dict[str, Detector] = {"talkpath": _ours, "threshold": _energy}
    if (webrtcvad := find_peer("webrtcvad")) is not None:
        for mode in (2, 3):

            def detect(audio: Pcm, mode: int = mode) -> Bools:
                vad = webrtcvad.Vad(mode)
                return debounced(np.array([vad.is_speech(f.tobytes(), RATE) for f in frames_of(audio, RATE)]))

            found[f"webrtcvad {mode}"] = detect
    return found


def evaluate(decided: Bools, speech: Bools, utterances: list[tuple[int, int]]) -> dict[str, float]:
    """Put decisions beside labels; the module says what the figures are."""
    near = np.zeros(len(speech), np.bool_)
    onsets_ms: list[float] = []
    for first, last in utterances:
        near[max(0, first - 2) : last + GUARD_FRAMES] = True
        if len(hits := np.flatnonzero(decided[first - 1 : last])):
            onsets_ms.append(float(hits[0]) * 20)
    wrong = decided & ~near
    return {
        "hit_percent": 100 * float(decided[speech].mean()),
        "false_percent": 100 * float(decided[~near].mean()),
        "false_per_minute": float(np.sum(wrong[1:] & ~wrong[:-1])) / (float(np.sum(~near)) * 0.02 / 60),
        "onset_ms": float(np.median(onsets_ms)) if onsets_ms else float("nan"),
        "onset_p90_ms": float(np.percentile(onsets_ms, 90)) if onsets_ms else float("nan"),
        "missed": float(len(utterances) - len(onsets_ms)),
    }


def _quality(count: int) -> Iterator[dict[str, Any]]:
    ways = detectors()
    voices = [voice for voice in VOICES if (PROMPTS / VOICES[voice]).is_dir()]
    for kind, snr_db in CONDITIONS:
        progress(f"voice activity: {kind}, {snr_db} dB")
        found: dict[tuple[str, bool], list[dict[str, float]]] = {}
        for voice in voices:
            clean, speech, utterances = speech_with_pauses(voice, 1, count)
            audio = noisy(clean, kind, snr_db, 6, voice)
            for name, detect in ways.items():
                figures = evaluate(detect(audio)[: len(speech)], speech, utterances)
                found.setdefault((name, voice in TUNED_ON), []).append(figures)
        for (name, tuned), each in found.items():
            mean = {key: float(np.mean([figures[key] for figures in each])) for key in each[0]}
            yield {"noise": kind, "snr_db": snr_db, "by": name, "voices": "tuned on" if tuned else "others", **mean}


def speed_rows() -> list[Row]:
    """What a frame costs, ours and webrtcvad's, of a minute of speech and pauses in noise, and of noise alone."""
    rows = []
    if PROMPTS.is_dir():
        audio = noisy(speech_with_pauses("en", 1, 12)[0], "pink", 15, 6, "en")
        rows.append(_speed_row("voice activity, speech and pauses", audio))
    still = noisy(np.zeros(60 * RATE), "pink", 15, 6, "en")
    return [*rows, _speed_row("voice activity, nobody speaks", still)]


def _speed_row(name: str, audio: Pcm) -> Row:
    frames = list(frames_of(audio, RATE))
    state = ffi.new("tp_voice *")
    lib.tp_voice_init(state, ffi.new("tp_voice_config *", (RATE, 80, 240, 0)))
    memory = ffi.from_buffer("int16_t[]", audio)
    activity = VoiceActivity(RATE)

    def run_fused() -> None:
        lib.tp_voice_receive(state, memory, len(audio))

    def run_public() -> None:
        for frame in frames:
            activity.process(frame)

    peers = [Candidate("talkpath, public call a frame", run_public, len(frames))]
    if (webrtcvad := find_peer("webrtcvad")) is not None:
        vad, octets = webrtcvad.Vad(2), [frame.tobytes() for frame in frames]

        def run_webrtcvad() -> None:
            for frame in octets:
                vad.is_speech(frame, RATE)

        peers.append(Candidate("webrtcvad", run_webrtcvad, len(frames)))
    return Row(name, Candidate("talkpath, fused", run_fused, len(frames), keeps=(audio,)), peers)


def run(effort: timing.Effort) -> dict[str, Any]:
    """Measure quality where there are prompts, and cost."""
    quality: list[dict[str, Any]] = []
    if PROMPTS.is_dir():
        quality = list(_quality(2 if effort is timing.SHORT else 12))
    else:
        progress(f"voice activity: no prompts in {PROMPTS}, its quality is left out")
    return {"quality": quality, "speed": timing.measure(speed_rows(), effort)}


def show(result: dict[str, Any], out: TextIO) -> None:
    """Print both tables."""
    heads = ("noise", "SNR dB", "by", "voices", "hit %", "false %", "a minute", "onset ms", "slowest tenth", "missed")
    keys = ("hit_percent", "false_percent", "false_per_minute", "onset_ms", "onset_p90_ms", "missed")
    rows = [
        [row["noise"], str(row["snr_db"]), row["by"], row["voices"], *(number(row[key]) for key in keys)]
        for row in result["quality"]
    ]
    if rows:
        print_table("voice activity: quality", heads, rows, out)
    timing.show("voice activity: cost", result["speed"], out)

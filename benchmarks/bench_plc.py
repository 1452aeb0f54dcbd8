"""Packet loss concealment: what it sounds like by PESQ, and what it costs.

Speech is Debian's prompts (asterisk-core-sounds-*-wav) and espeak-ng, read at run time: nothing of it is kept here.
PESQ is the package `pesq`, a development tool. What is not installed is left out by name; the speed rows need neither.

The bar's twelve prompts are the longest of one speaker between 7.8 and 15.5 s that are spoken: longer ones read out
lists of keys, and some of the longest are monkeys, and silence. Parameters were chosen by the voices "tuned on" alone.
"""

from __future__ import annotations

import shutil
import subprocess
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
from cffi import FFI

from benchmarks import timing
from benchmarks.peers import find_peer
from benchmarks.plots import Series, line_plot
from benchmarks.report import ROOT, Goal, judge_goal, print_goals, print_table, progress, spread
from benchmarks.signals import Pcm, speech_like
from benchmarks.timing import Candidate, Row, measure
from talkpath._native import ffi, lib
from talkpath.dsp import Concealer, conceal, pcmu_decode, pcmu_encode

SAMPLES = 160
PROMPTS = Path("/usr/share/asterisk/sounds")
ALLISON = (
    *("demo-abouttotry", "demo-moreinfo", "vm-msginstruct", "conf-usermenu", "dir-intro-fn", "dir-intro"),
    *("vm-opts-full", "confbridge-mute-extended", "demo-nogo", "dictate/play_help", "tt-allbusy"),
    "queue-periodic-announce",
)
SENTENCES = (
    "Good afternoon, you have reached the harbour office. If you know the extension of the person that you wish to "
    "speak to, please enter it now, or stay on the line.",
    "The ferry to the northern islands leaves at twenty past seven from the second pier. Tickets are sold on board, "
    "and bicycles travel free of charge until the end of June.",
)
TO_8_KHZ = (
    "sox",
    "-t",
    "wav",
    "-",
    "-r",
    "8000",
    "-c",
    "1",
    "-b",
    "16",
    "-e",
    "signed",
    "-t",
    "raw",
    "-",
    "gain",
    "-3",
)
RATES = (0.01, 0.03, 0.05, 0.10, 0.20)
BURST_RATES = (0.03, 0.05, 0.10)
BURST_FRAMES = 2.5
GOALS = {0.01: 3.88, 0.03: 3.60, 0.05: 3.40, 0.10: 2.85, 0.20: 2.30}
LOST_NS, GOOD_NS = 1000, 50

Lost = npt.NDArray[np.bool_]
Conceal = Callable[[Pcm, Lost], Pcm]
Losses = Callable[[int, float, int], Lost]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to listen to, and how long to take the time."""

    prompts: int
    seeds: int
    timing: timing.Effort


FULL = Effort(prompts=100, seeds=2, timing=timing.FULL)
SHORT = Effort(prompts=1, seeds=1, timing=timing.SHORT)


@dataclass(frozen=True, slots=True)
class Voice:
    """Some speech of one speaker, and what part it had in the making."""

    name: str
    part: str
    """bar, tuned on, or heard for the first time"""
    folder: str = ""
    prompts: tuple[str, ...] = ()
    espeak: tuple[tuple[str, int], ...] = ()
    """espeak-ng's voices and their pitch."""


VOICES = (
    Voice("Allison, English, female", "bar", "en_US_f_Allison", ALLISON),
    Voice(
        *("Carlo, Italian, male", "tuned on", "it_IT_m_Carlo"),
        prompts=("vm-msginstruct", "dir-intro-fn", "demo-abouttotry", "dictate/play_help"),
    ),
    Voice(
        *("June, French, female", "tuned on", "fr_CA_f_June"),
        prompts=("dir-intro", "vm-opts-full", "demo-abouttotry", "confbridge-mute-extended", "demo-nogo"),
    ),
    Voice("espeak-ng, English, male", "tuned on", espeak=(("en-us", 30), ("en-gb+m3", 20))),
    Voice(
        *("Carlo, other prompts", "heard for the first time", "it_IT_m_Carlo"),
        prompts=("conf-usermenu", "dir-intro", "demo-moreinfo", "vm-opts-full", "demo-nogo"),
    ),
    Voice(
        *("IvrvoiceRU, Russian, female", "heard for the first time", "ru_RU_f_IvrvoiceRU"),
        prompts=("demo-abouttotry", "demo-moreinfo", "dictate/play_help", "vm-opts-full", "dir-intro-fn"),
    ),
    Voice(
        *("Allison, Spanish, female", "heard for the first time", "es_MX_f_Allison"),
        prompts=("demo-nogo", "dir-intro", "tt-allbusy", "vm-opts-full"),
    ),
    Voice("espeak-ng, English, female", "heard for the first time", espeak=(("en-us+f2", 50), ("en-gb+f4", 60))),
    Voice(
        "espeak-ng, Scottish, male", "heard for the first time", espeak=(("en-gb-scotland+m2", 35), ("en-us+m7", 45))
    ),
)


def _prompt(path: Path) -> Pcm:
    with wave.open(str(path)) as file:
        samples: Pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        return samples


def _spoken(voice: str, pitch: int, text: str) -> Pcm:
    said = subprocess.run(
        ["espeak-ng", "-v", voice, "-p", str(pitch), "--stdout", text], capture_output=True, check=True
    ).stdout
    samples: Pcm = np.frombuffer(subprocess.run(TO_8_KHZ, input=said, capture_output=True, check=True).stdout, np.int16)
    return samples


def speech_of(voice: Voice, at_most: int) -> list[Pcm]:
    """Read a voice's speech, whole frames at 8 kHz; empty where it is not installed."""
    if voice.espeak:
        if shutil.which("espeak-ng") is None or shutil.which("sox") is None:
            return []
        spoken = [_spoken(name, pitch, text) for name, pitch in voice.espeak for text in SENTENCES][:at_most]
    else:
        paths = [PROMPTS / voice.folder / f"{name}.wav" for name in voice.prompts][:at_most]
        spoken = [_prompt(path) for path in paths if path.exists()]
    return [pcm[: len(pcm) // SAMPLES * SAMPLES] for pcm in spoken]


def random_losses(n_frames: int, rate: float, seed: int) -> Lost:
    """Frames lost independently; the first three and the last are not, for nothing could be made of them."""
    lost: Lost = np.random.default_rng([seed, round(rate * 1000), n_frames]).random(n_frames) < rate
    lost[:3] = lost[-1:] = False
    return lost


def burst_losses(n_frames: int, rate: float, seed: int) -> Lost:
    """Gilbert-Elliott: a good state that loses nothing and a bad one that loses all, 2.5 frames long on average."""
    random = np.random.default_rng([seed, 7000 + round(rate * 1000), n_frames]).random(n_frames)
    out_of_bad = 1 / BURST_FRAMES
    into_bad = rate / (1 - rate) * out_of_bad
    lost = np.zeros(n_frames, np.bool_)
    bad = False
    for i in range(3, n_frames - 1):
        bad = random[i] >= out_of_bad if bad else random[i] < into_bad
        lost[i] = bad
    return lost


def _silence(pcm: Pcm, lost: Lost) -> Pcm:
    return np.where(np.repeat(lost, SAMPLES), np.int16(0), pcm)


def _repeat(pcm: Pcm, lost: Lost) -> Pcm:
    played = pcm.copy().reshape(-1, SAMPLES)
    for i in np.flatnonzero(lost):
        played[i] = played[i - 1]
    return played.ravel()


def _one_sided(pcm: Pcm, lost: Lost) -> Pcm:
    concealer = Concealer()
    frames = pcm.reshape(-1, SAMPLES)
    return np.concatenate(
        [
            concealer.fillin(SAMPLES) if gone else concealer.receive(frame)
            for frame, gone in zip(frames, lost, strict=True)
        ]
    )


def _two_sided(pcm: Pcm, lost: Lost) -> Pcm:
    return conceal(pcm, lost)  # type: ignore[arg-type]  # an array of booleans is a sequence of them


def _declare(what: str) -> Any:
    declared = FFI()
    declared.cdef(what)
    return declared


class Spandsp:
    """spandsp's concealment, one-sided as its interface is."""

    def __init__(self) -> None:
        self._ffi = _declare(
            "void *plc_init(void *); int plc_rx(void *, int16_t *, int); int plc_fillin(void *, int16_t *, int);"
            "int plc_free(void *);"
        )
        self.lib = self._ffi.dlopen("libspandsp.so.2")
        self.state = self._ffi.gc(self.lib.plc_init(self._ffi.NULL), self.lib.plc_free)

    def samples(self, pcm: Pcm) -> Any:
        """See an array from the library's side."""
        return self._ffi.from_buffer("int16_t[]", pcm)

    def conceal(self, pcm: Pcm, lost: Lost) -> Pcm:
        """Conceal frame by frame."""
        played = pcm.copy()
        for at, gone in zip(range(0, len(pcm), SAMPLES), lost, strict=True):
            frame = self.samples(played[at : at + SAMPLES])
            (self.lib.plc_fillin if gone else self.lib.plc_rx)(self.state, frame, SAMPLES)
        return played


def find_spandsp() -> type[Spandsp] | None:
    """Return the peer, or None where the library is not installed."""
    try:
        Spandsp()
    except (OSError, AttributeError):
        return None
    return Spandsp


def _methods() -> dict[str, Conceal]:
    methods: dict[str, Conceal] = {"silence": _silence, "repeat": _repeat}
    if find_spandsp() is not None:
        methods["spandsp"] = lambda pcm, lost: Spandsp().conceal(pcm, lost)
    return methods | {"talkpath, one-sided": _one_sided, "talkpath, two-sided": _two_sided}


def _heard(pesq: Any, spoken: list[Pcm], by: Conceal, make: Losses, rate: float, seed: int) -> float:
    """Mean narrow-band MOS-LQO against the original, after G.711 and losses that differ from piece to piece."""
    scores = []
    for i, pcm in enumerate(spoken):
        sent = pcmu_decode(pcmu_encode(pcm))
        scores.append(pesq.pesq(8000, pcm, by(sent, make(len(pcm) // SAMPLES, rate, 100 * seed + i)), "nb"))
    return float(np.mean(scores))


def listen(effort: Effort) -> list[dict[str, Any]]:
    """Measure every voice: one object for a voice, a way to conceal and a way to lose, with the scores by rate."""
    pesq = find_peer("pesq")
    if pesq is None:
        progress("pesq is not installed: quality is left out")
        return []
    results: list[dict[str, Any]] = []
    for voice in VOICES:
        spoken = speech_of(voice, effort.prompts)
        if not spoken:
            progress(f"{voice.name} is not installed: left out")
            continue
        seconds = sum(len(pcm) for pcm in spoken) / 8000
        progress(f"{voice.name}: {len(spoken)} pieces, {seconds:.0f} s")
        g711 = _heard(pesq, spoken, lambda pcm, _: pcm, random_losses, 0, 0)
        methods, seeds = _methods(), range(1, effort.seeds + 1)
        if voice.part != "bar":
            methods = {name: by for name, by in methods.items() if name in ("spandsp", "talkpath, two-sided")}
        for kind, make, rates in (("random", random_losses, RATES), ("bursts", burst_losses, BURST_RATES)):
            for name, by in methods.items():
                scores = {rate: [_heard(pesq, spoken, by, make, rate, seed) for seed in seeds] for rate in rates}
                entry = {"voice": voice.name, "part": voice.part, "seconds": seconds, "without_loss": g711}
                entry |= {"losses": kind, "by": name}
                results.append(entry | {"mos_lqo": {f"{rate:g}": spread(each) for rate, each in scores.items()}})
    return results


def speed_rows() -> list[Row]:
    """A good frame, and a good and a lost one in turn: a call each as the peer has it, and in one call over all."""
    pcm = speech_like(10)
    n_frames = len(pcm) // SAMPLES
    base = ffi.from_buffer("int16_t[]", pcm)
    frames = [base + i * SAMPLES for i in range(n_frames)]
    state, out, work = ffi.new("tp_plc *"), ffi.new("int16_t[]", SAMPLES), np.empty_like(pcm)
    lib.tp_plc_init(state, 8000)
    whole = ffi.from_buffer("int16_t[]", work)
    none, half = bytes(n_frames), bytes(i % 2 for i in range(n_frames))
    receive, fillin = lib.tp_plc_receive, lib.tp_plc_fillin

    def run_good() -> None:
        for frame in frames:
            receive(state, frame, SAMPLES)

    def run_pairs() -> None:
        for i in range(0, n_frames - 2, 2):
            receive(state, frames[i], SAMPLES)
            fillin(state, out, SAMPLES, frames[i + 2], SAMPLES)

    def run_pairs_one_sided() -> None:
        work[:] = pcm
        for i in range(0, n_frames - 2, 2):
            receive(state, whole + i * SAMPLES, SAMPLES)
            fillin(state, out, SAMPLES, ffi.NULL, 0)

    def at_once(lost: bytes) -> Callable[[], None]:
        def run() -> None:
            work[:] = pcm
            lib.tp_plc_conceal(state, whole, n_frames, SAMPLES, lost)

        return run

    good, pairs = [], [Candidate("talkpath, one-sided", run_pairs_one_sided, n_frames // 2 - 1)]
    spandsp = find_spandsp()
    if spandsp is not None:
        peer = spandsp()
        theirs, made = (
            [peer.samples(pcm[i * SAMPLES : (i + 1) * SAMPLES].copy()) for i in range(n_frames)],
            np.empty(160, "<i2"),
        )
        rx, fill, peer_state, peer_out = peer.lib.plc_rx, peer.lib.plc_fillin, peer.state, peer.samples(made)

        def run_their_good() -> None:
            for frame in theirs:
                rx(peer_state, frame, SAMPLES)

        def run_their_pairs() -> None:
            for i in range(0, n_frames - 2, 2):
                rx(peer_state, theirs[i], SAMPLES)
                fill(peer_state, peer_out, SAMPLES)

        good.append(Candidate("spandsp", run_their_good, n_frames, keeps=(peer,)))
        pairs.insert(0, Candidate("spandsp", run_their_pairs, n_frames // 2 - 1, keeps=(peer,)))
    kept = (pcm, work)
    return [
        Row("PLC, good frame, a call each", Candidate("talkpath", run_good, n_frames, keeps=kept), good),
        Row("PLC, good and lost frame, a call each", Candidate("talkpath", run_pairs, n_frames // 2 - 1), pairs),
        Row("PLC, good frame, fused", Candidate("talkpath", at_once(none), n_frames), []),
        Row("PLC, good and lost frame, fused", Candidate("talkpath", at_once(half), n_frames // 2), []),
    ]


def run(effort: Effort) -> dict[str, Any]:
    """Measure quality and speed.

    Returns:
        quality: see `listen`; speed: see `timing.measure`; goals.
    """
    quality = listen(effort)
    speed = measure(speed_rows(), effort.timing)
    good, pair = (each["ours"]["samples_ns"] for each in speed[2:])
    lost = [both - alone for both, alone in zip(pair, good, strict=True)]
    goals = [
        judge_goal(
            Goal(f"MOS-LQO, twelve prompts, {rate:.0%} lost", "", GOALS[rate], True), entry["mos_lqo"][f"{rate:g}"]
        )
        for entry in quality
        if (entry["part"], entry["losses"], entry["by"]) == ("bar", "random", "talkpath, two-sided")
        for rate in RATES
    ]
    goals.append(judge_goal(Goal("a lost frame, two-sided, fused", "ns", LOST_NS, False), spread(lost)))
    goals.append(judge_goal(Goal("a good frame, fused", "ns", GOOD_NS, False), spread(good)))
    theirs = [
        {peer["name"]: peer["samples_ns"] for peer in each["peers"]} | {"ours": each["ours"]["samples_ns"]}
        for each in speed[:2]
    ]
    if "spandsp" in theirs[0]:
        alone = [b - a for a, b in zip(theirs[0]["spandsp"], theirs[1]["spandsp"], strict=True)]
        ratio = spread([each / own for each, own in zip(alone, lost, strict=True)])
        goals.append(judge_goal(Goal("spandsp's lost frame over ours", "x", 3, True), ratio))
    return {"quality": quality, "speed": speed, "goals": goals}


def _lines(results: Sequence[dict[str, Any]], rates: Sequence[float]) -> list[list[str]]:
    return [
        [
            *(entry["voice"], entry["part"], entry["by"], f"{entry['without_loss']:.2f}"),
            *(f"{entry['mos_lqo'][f'{rate:g}']['median']:.2f}" for rate in rates),
        ]
        for entry in results
    ]


def show(result: dict[str, Any], file: TextIO) -> None:
    """Print the tables."""
    for kind, title, rates in (
        ("random", "concealment: MOS-LQO at random losses of 20 ms", RATES),
        ("bursts", f"concealment: MOS-LQO at bursts of {BURST_FRAMES:g} frames on average", BURST_RATES),
    ):
        chosen = [entry for entry in result["quality"] if entry["losses"] == kind]
        if chosen:
            heads = ("voice", "part", "by", "no loss", *(f"{rate:.0%}" for rate in rates))
            print_table(title, heads, _lines(chosen, rates), file)
    timing.show("concealment: speed", result["speed"], file)
    print_goals(result["goals"], file)


def _vowel(frames: npt.NDArray[np.float64]) -> int:
    """Find the frame that is as loud as both of its neighbours: the middle of a vowel."""
    loud = (frames**2).sum(axis=1)
    return int(np.argmax(np.minimum(np.minimum(loud[:-2], loud[2:]), loud[1:-1]))) + 1


def draw(directory: Path) -> list[Path]:
    """Draw a gap in the example's speech: what was said, what is left, what one side makes of it, and what both do."""
    with wave.open(str(ROOT / "examples" / "audio" / "caller.wav")) as file:
        said: Pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)[:: file.getframerate() // 8000]
    said = said[: len(said) // SAMPLES * SAMPLES]
    gap = _vowel(said.reshape(-1, SAMPLES).astype(np.float64))
    lost = np.arange(len(said) // SAMPLES) == gap
    shown = slice((gap - 1) * SAMPLES, (gap + 2) * SAMPLES)
    apart = 2 * float(np.abs(said[shown].astype(np.float64)).max())
    ms = [sample / 8 - 20 for sample in range(3 * SAMPLES)]
    signals = {
        "said": said,
        "20 ms lost": _silence(said, lost),
        "from before": _one_sided(said, lost),
        "from both sides": _two_sided(said, lost),
    }
    series: list[Series] = [
        (name, ms, [float(x) - index * apart for x in signal[shown]])
        for index, (name, signal) in enumerate(signals.items())
    ]
    path = directory / "concealment.svg"
    line_plot(path, "A lost frame of 20 ms, made up", "ms", "samples, each line lower than the last", series)
    return [path]

"""A tick of many calls at once against the modules one by one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from talkpath.dsp import (
    EAR_BYTES,
    SILENCE_DBOV,
    Ears,
    Level,
    Resampler,
    VoiceActivity,
    pcma_decode,
    pcma_encode,
    pcmu_decode,
    pcmu_encode,
)
from talkpath.errors import ConfigError, FormatError

CODECS = {
    "PCMU": (pcmu_encode, pcmu_decode),
    "PCMA": (pcma_encode, pcma_decode),
    "L16": (lambda pcm: pcm.tobytes(), lambda data: np.frombuffer(data, np.int16)),
}


def voices(n: int, n_frames: int, frame: int) -> npt.NDArray[np.int16]:
    """int16, [n, n_frames, frame]: hums that come and go, each in its own rhythm, over noise."""
    rng = np.random.default_rng(5)
    at = np.arange(n_frames * frame)
    out = []
    for i in range(n):
        hum = sum(np.sin(2 * np.pi * k * (110 + 7 * i) * at / 8000) for k in range(1, 9))
        out.append(800 * hum * ((at // (2000 + 300 * i)) % 2) + rng.normal(0, 30, len(at)))
    return np.array(out).astype(np.int16).reshape(n, n_frames, frame)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("sample_rate_hz", "frame"), [(8000, 160), (8000, 240), (16000, 320)])
def test_all_at_once_is_one_by_one(codec: str, sample_rate_hz: int, frame: int) -> None:
    n, n_frames = 5, 60
    encode, decode = CODECS[codec]
    sound = voices(n, n_frames, frame)
    missing = np.random.default_rng(2).random((n_frames, n)) < 0.1
    ears = Ears(n, codec, sample_rate_hz=sample_rate_hz)
    wide = [Resampler(sample_rate_hz, 16000) for _ in range(n)]
    gates = [VoiceActivity(sample_rate_hz) for _ in range(n)]
    states = set()
    for t in range(n_frames):
        payloads = [encode(sound[i, t]) for i in range(n)]
        present = None if t < 10 else ~missing[t]
        tick = ears.process(np.array([np.frombuffer(data, np.uint8) for data in payloads]), present)
        for i in range(n):
            if present is None or present[i]:
                pcm = decode(payloads[i])
                level, state = Level().process(pcm), gates[i].process(pcm)
            else:
                pcm, level, state = np.zeros(frame, np.int16), SILENCE_DBOV, gates[i].fillin(frame)
            assert np.array_equal(tick.pcm[i], wide[i].process(pcm))
            assert tick.level_dbov[i] == pytest.approx(level, abs=0.006)
            assert tick.voice[i] == state
            assert tick.speaking[i] == gates[i].speaking
            states.add(int(state))
    assert states == {0, 1, 2, 3}


def test_an_ear_that_begins_anew_remembers_nothing() -> None:
    ears, sound = Ears(2), np.full((2, 160), 0x10, np.uint8)
    first = ears.process(sound)
    ears.process(sound)
    ears.reset(0)
    again = ears.process(sound)
    assert np.array_equal(again.pcm[0], first.pcm[0])
    assert not np.array_equal(again.pcm[1], first.pcm[1])


def test_an_ear_is_small() -> None:
    assert EAR_BYTES <= 4096


def test_what_cannot_be_is_refused_in_words() -> None:
    for wrong in ((0,), (1, "G722")):
        with pytest.raises(ConfigError):
            Ears(*wrong)
    for options in ({"sample_rate_hz": 11025}, {"onset_ms": 0}):
        with pytest.raises(ConfigError):
            Ears(1, **options)  # type: ignore[arg-type]
    ears = Ears(2, "L16")
    for shape, kind in (((3, 320), np.uint8), ((2, 320), np.int16), ((320,), np.uint8), ((2, 321), np.uint8)):
        with pytest.raises(FormatError):
            ears.process(np.zeros(shape, kind))
    with pytest.raises(FormatError):
        ears.process(np.zeros((2, 2000), np.uint8))
    with pytest.raises(FormatError):
        ears.process(np.zeros((2, 320), np.uint8), np.zeros(3, np.bool_))
    with pytest.raises(FormatError, match="out must be int16"):
        ears.process(np.zeros((2, 320), np.uint8), out=np.zeros((2, 160), np.int16))
    out = np.ones((2, 320), np.int16)
    assert ears.process(np.zeros((2, 320), np.uint8), out=out).pcm is out
    assert not out.any()
    with pytest.raises(ConfigError):
        ears.reset(2)

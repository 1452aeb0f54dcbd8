"""A call written down: both tracks, exact to the sample; disks that are full, slow or hang, unheard by the caller."""

from __future__ import annotations

import threading
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import trio
import trio.testing

import talkpath.audio
from support.virtual import speech, virtual_engine
from talkpath.audio import WavWriter
from talkpath.engine import EngineConfig, MemoryLeg, RtpLeg, StreamSpec, open_engine
from talkpath.errors import CallEnded, ConfigError
from talkpath.line import Line, serve_memory_lines
from talkpath.records import EndReason, RecordingRecord
from talkpath.transport import recording as recording_module

SPEECH = speech(8 * 8000)


def read_pairs(path: Path) -> npt.NDArray[np.int16]:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, 8000)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)


def jump(seconds: float) -> None:
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    clock.jump(seconds)


async def test_both_tracks_lie_on_one_clock_through_stalls(autojump: object, tmp_path: Path) -> None:
    """An echo: what the caller hears is what he said, one constant delay later, wherever the driver stalled."""

    async def echo(line: Line) -> None:
        async for chunk in line.listen():
            line.speak(chunk)

    path = tmp_path / "both.wav"
    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve_memory_lines, echo, "echo")
        async with virtual_engine() as engine, engine.open_call(MemoryLeg()) as call:
            leg = call.leg
            assert isinstance(leg, MemoryLeg)
            await call.start_stream(StreamSpec(url=url, bidirectional=True, codec="L16@8000h"))
            await trio.sleep(0.5)
            recording = await call.record_to(path)
            began = len(leg.heard())
            leg.say(SPEECH)
            for stall_s in (0.3, 0.05, 1.0):
                await trio.sleep(2.01)
                jump(stall_s)
            await trio.sleep(6)
            heard = leg.heard()
        nursery.cancel_scope.cancel()
    assert call.record is not None
    pairs = read_pairs(path)
    assert call.record.recordings == (RecordingRecord(str(path), recording.at_sample, len(pairs), 8000),)
    assert recording.at_sample + len(pairs) == call.record.statistics.clock_samples
    assert call.record.statistics.loop_stall_samples > 8000
    # What was said, in order, with holes of silence where the driver skipped.
    said = pairs[:, 0]
    assert np.array_equal(said[said != 0], SPEECH[SPEECH != 0])
    # What was heard is what the leg was given, but for the holes.
    right = pairs[:, 1]
    assert np.array_equal(right[right != 0], heard[began:][heard[began:] != 0])
    # The first seconds are an exact echo.
    delay = int(np.flatnonzero(right)[0] - np.flatnonzero(said)[0])
    first = int(np.flatnonzero(said)[0])
    assert delay < 1600
    assert np.array_equal(said[first : first + 15000], right[first + delay : first + delay + 15000])


async def test_a_recording_can_be_stopped_and_another_begun(autojump: object, tmp_path: Path) -> None:
    async with virtual_engine() as engine:
        async with engine.open_call(MemoryLeg()) as call:
            leg = call.leg
            assert isinstance(leg, MemoryLeg)
            first = await call.record_to(tmp_path / "1.wav")
            with pytest.raises(ConfigError, match="recorded already"):
                await call.record_to(tmp_path / "2.wav")
            leg.say(SPEECH)
            await trio.sleep(3)
            record = await first.stop()
            assert await first.stop() == record == first.record
            assert record.n_samples == first.n_samples == len(read_pairs(tmp_path / "1.wav"))
            assert 3 * 8000 - 320 <= record.n_samples <= 3 * 8000 + 320
            second = await call.record_to(tmp_path / "2.wav")
            assert second.at_sample >= record.at_sample + record.n_samples
            await trio.sleep(1)
        assert call.record is not None
        assert [one.path[-5:] for one in call.record.recordings] == ["1.wav", "2.wav"]
        joined = np.concatenate([read_pairs(tmp_path / "1.wav"), read_pairs(tmp_path / "2.wav")])[:, 0]
        said = joined[joined != 0]
        assert np.array_equal(said[:20000], SPEECH[SPEECH != 0][:20000])
        with pytest.raises(CallEnded):
            await call.record_to(tmp_path / "3.wav")


async def test_what_was_recorded_can_be_read_before_the_end(autojump: object, tmp_path: Path) -> None:
    """As after a crash: the header tells of all but the last second or so."""
    async with virtual_engine() as engine, engine.open_call(MemoryLeg()) as call:
        await call.record_to(tmp_path / "both.wav")
        await trio.sleep(10)
        assert len(read_pairs(tmp_path / "both.wav")) >= 8.5 * 8000


async def test_a_file_that_cannot_be_made_is_the_callers_to_mend(autojump: object, tmp_path: Path) -> None:
    async with virtual_engine() as engine, engine.open_call(MemoryLeg()) as call:
        with pytest.raises(FileNotFoundError):
            await call.record_to(tmp_path / "no such directory" / "both.wav")
        await call.record_to(tmp_path / "both.wav")


@pytest.mark.parametrize("at_the_end", [False, True])
async def test_a_full_disk_ends_the_recording_and_not_the_call(
    autojump: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_the_end: bool
) -> None:
    full = False
    write = WavWriter.write

    def fills(writer: WavWriter, samples: npt.NDArray[np.int16]) -> None:
        if full:
            raise OSError(28, "No space left on device")
        write(writer, samples)

    monkeypatch.setattr(WavWriter, "write", fills)
    async with virtual_engine() as engine:
        async with engine.open_call(MemoryLeg()) as call:
            recording = await call.record_to(tmp_path / "both.wav")
            await trio.sleep(3.5)
            full = True
            if not at_the_end:
                record = await recording.wait_ended()
                assert "No space left on device" in record.error
                assert trio.current_time() < 5
                await trio.sleep(1)
                assert call.end_reason is None
                full = False
                await (await call.record_to(tmp_path / "again.wav")).stop()
        assert call.record is not None
        assert call.record.reason is EndReason.BLOCK_LEFT
        assert "No space left on device" in call.record.recordings[0].error
        assert len(read_pairs(tmp_path / "both.wav")) == call.record.recordings[0].n_samples >= 3 * 8000 - 320


async def test_a_file_of_four_gigabytes_ends_the_recording_in_words(
    autojump: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talkpath.audio, "_MAX_WAV_DATA_BYTES", 100_000)
    async with virtual_engine() as engine, engine.open_call(MemoryLeg()) as call:
        recording = await call.record_to(tmp_path / "both.wav")
        assert "4 GiB; begin another" in (await recording.wait_ended()).error
        assert 0 < len(read_pairs(tmp_path / "both.wav")) <= 25_000
        assert call.end_reason is None


class SlowDisk:
    """A disk whose writes wait until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = threading.Event()
        self.begun = threading.Event()
        self.closed = threading.Event()
        write, close = WavWriter.write, WavWriter.close

        def waits(writer: WavWriter, samples: npt.NDArray[np.int16]) -> None:
            self.begun.set()
            self.free.wait(20)
            write(writer, samples)

        def closes(writer: WavWriter) -> None:
            close(writer)
            self.closed.set()

        monkeypatch.setattr(WavWriter, "write", waits)
        monkeypatch.setattr(WavWriter, "close", closes)


def silent_leg() -> RtpLeg:
    return RtpLeg(local=("127.0.0.1", 0), remote=("127.0.0.1", 9), media_timeout_s=0)


@pytest.mark.parametrize("driver", ["tasks", "pump"])
def test_a_disk_that_does_not_keep_up_ends_the_recording_and_not_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    disk = SlowDisk(monkeypatch)
    monkeypatch.setattr(recording_module, "TAPE_S", 0.25)
    monkeypatch.setattr(recording_module, "WRITE_EVERY_S", 0.05)

    async def main() -> None:
        config = EngineConfig(driver=driver)  # type: ignore[arg-type]
        async with open_engine(config) as engine, engine.open_call(silent_leg()) as call:
            recording = await call.record_to(tmp_path / "both.wav")
            record = await recording.wait_ended()
            assert "lagged by more than" in record.error
            sent = call.statistics().packets_sent
            await trio.sleep(0.1)
            assert call.statistics().packets_sent > sent
            disk.free.set()

    trio.run(main)
    assert disk.closed.wait(10)


def test_a_disk_that_hangs_does_not_hold_the_hang_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SlowDisk(monkeypatch)

    async def main() -> None:
        async with open_engine(EngineConfig(goodbye_s=0.1)) as engine:
            async with engine.open_call(silent_leg()) as call:
                await call.record_to(tmp_path / "both.wav")
                await trio.to_thread.run_sync(disk.begun.wait, 10)
            assert call.record is not None
            assert "did not take the end in time" in call.record.recordings[0].error
            assert not disk.free.is_set()
            disk.free.set()

    trio.run(main)
    assert disk.closed.wait(10)


def test_an_orderly_recording_in_real_time_is_whole(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_engine() as engine:
            async with engine.open_call(silent_leg()) as call:
                await call.record_to(tmp_path / "both.wav")
                await trio.sleep(0.2)
            assert call.record is not None
            (record,) = call.record.recordings
            assert record.error == ""
            assert record.n_samples == len(read_pairs(tmp_path / "both.wav"))
            assert record.at_sample + record.n_samples == call.record.statistics.clock_samples

    trio.run(main)

"""Every example runs: what the documentation shows is what works."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import trio
import trio.testing

import talkpath
from talkpath.line import serve_memory_lines
from talkpath.testing import ToneSource, find_tones, quiescence
from talkpath.testing.caller import Caller, CallerScript
from talkpath.wire.sdp import LocalAudio, accept, build_offer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load(name: str) -> ModuleType:
    described = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert described is not None
    assert described.loader is not None
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    return module


def test_each_example_is_named_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {
        "call_server",
        "demo_bot",
        "echo_bot",
        "every_wire_bot",
        "many_cores",
        "neural_bot",
        "synthesiser_bot",
        "test_bot",
        "transcribe_call",
    }


def test_the_tester_s_virtual_time_test_passes() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLES / "test_bot.py")]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=EXAMPLES.parent)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "1 passed" in answer.stdout


async def test_the_synthesiser_bot_stops_for_the_caller_and_goes_on(
    autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    example = load("synthesiser_bot")
    leg = talkpath.MemoryLeg(sample_rate_hz=8000)
    with quiescence():
        async with trio.open_nursery() as nursery:
            url = await nursery.start(serve_memory_lines, example.bot, "news")
            async with talkpath.open_engine() as engine, engine.open_call(leg) as call:
                await call.start_stream(talkpath.StreamSpec(url=url, bidirectional=True, ends_call=True))
                await trio.sleep(1.5)
                leg.say(ToneSource(2_000, level_dbov=-20).take(4_000))
                record = await call.wait_ended()
            nursery.cancel_scope.cancel()
    assert record.reason is talkpath.EndReason.APPLICATION_HUNG_UP
    assert record.streams[0].clears == 1
    said = capsys.readouterr().out
    assert said.startswith("interrupted after 1.")
    assert example.NEWS[0] in said
    heard = leg.heard().astype(np.int32)
    # Quiet from soon after the caller's first 100 ms until 600 ms after his last word.
    assert not np.abs(heard[int(1.9 * 8000) : int(2.5 * 8000)]).any()
    assert np.abs(heard[int(3.0 * 8000) : int(4.0 * 8000)]).max() > 3_000


@pytest.mark.smoke
async def test_the_call_server_answers_an_offer_and_returns_the_record() -> None:
    example = load("call_server")
    answers: list[str] = []
    records: list[talkpath.CallRecord] = []
    heard: list[np.ndarray] = []

    async def bot(line: talkpath.Line) -> None:
        assert line.info.custom_parameters["queue"] == "front desk"
        line.speak(ToneSource(1_000).take(4_000), sample_rate_hz=8_000)
        async for chunk in line.listen():
            heard.append(chunk.samples)
            if len(heard) == 50:
                break

    caller = Caller(CallerScript(speech=talkpath.AudioClip(ToneSource(450).take(16_000), 8_000)))
    with trio.fail_after(20), quiescence():
        async with talkpath.open_engine() as engine, trio.open_nursery() as nursery:
            ((host, port),) = await nursery.start(talkpath.serve_lines, bot, "127.0.0.1", 0)
            address, media_port = await nursery.start(caller.run)
            ours = LocalAudio(address, media_port)

            def signal(answer: str) -> None:
                agreed = accept(ours, answer)
                answers.append(agreed.codec)
                caller.connect((agreed.remote_address, agreed.remote_port))
                caller.begin()

            record = await example.answer_call(engine, build_offer(ours), f"ws://{host}:{port}", send_answer=signal)
            records.append(record)
            nursery.cancel_scope.cancel()
    assert answers == ["PCMU"]
    assert records[0].reason is talkpath.EndReason.APPLICATION_HUNG_UP
    assert find_tones(np.concatenate(heard), 8_000, [450])
    assert find_tones(caller.machine.heard(), 8_000, [1_000])


@pytest.mark.slow
@pytest.mark.smoke
async def test_the_call_server_on_many_cores_carries_a_call_in_a_worker(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    example = load("many_cores")
    heard: list[np.ndarray] = []

    async def bot(line: talkpath.Line) -> None:
        async for chunk in line.listen():
            heard.append(chunk.samples)
            if len(heard) == 50:
                break

    caller = Caller(CallerScript(speech=talkpath.AudioClip(ToneSource(450).take(24_000), 8_000)))
    with trio.fail_after(60), quiescence():
        config = talkpath.WorkersConfig(count=1, port_range=(22000, 22099))
        async with talkpath.open_workers("many_cores:run_call", config) as workers, trio.open_nursery() as nursery:
            ((host, port),) = await nursery.start(talkpath.serve_lines, bot, "127.0.0.1", 0)
            ours = LocalAudio(*await nursery.start(caller.run))

            async def call_it() -> None:
                said = ""
                while "m=audio" not in said:
                    await trio.sleep(0.02)
                    said += capfd.readouterr().out
                agreed = accept(ours, said.strip() + "\r\n")
                caller.connect((agreed.remote_address, agreed.remote_port))
                caller.begin()
                assert 22000 <= agreed.remote_port < 22100

            nursery.start_soon(call_it)
            reason = await example.answer_call(workers, build_offer(ours), f"ws://{host}:{port}")
            nursery.cancel_scope.cancel()
    assert reason is talkpath.EndReason.APPLICATION_HUNG_UP
    assert find_tones(np.concatenate(heard), 8_000, [450])


@pytest.mark.slow
@pytest.mark.smoke
def test_the_demonstration_goes_as_scripted(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "talkpath", "demo", "--out", str(tmp_path / "out")]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=EXAMPLES.parent)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "NOT SO" not in answer.stdout
    assert talkpath.read_audio(tmp_path / "out" / "heard.wav").duration_ms > 10_000

"""What 20 ms of one call cost in the native core, without sockets and without an event loop.

A datagram of RTP and a playAudio message go in, a datagram and a media message come out: `tp_path` and `tp_stream` as
the drivers call them, many calls to a tick. The peer does the same work with the libraries of a Python program.
"""

from __future__ import annotations

import itertools
import struct
from typing import Any

from benchmarks.bench_media_message import (
    G711_NAME,
    WrongAnswerError,
    dialect_at,
    g711,
    wsproto_receive,
    wsproto_send,
)
from benchmarks.signals import frames_of, speech_like
from benchmarks.timing import Candidate, Row
from talkpath._native import ffi, lib
from talkpath.wire.dialect import Role
from talkpath.wire.media_message import compile_shape, compile_template

CALLS = 200
STEPS = 5
SAMPLES = 160
PCMU = 1
TRACK_INBOUND = 1
PTIME_NS = 20_000_000
POOL_BYTES = 8 << 20
ROOM_PER_CALL = 1024
PACKET_BYTES = 12 + SAMPLES

rtp_header = struct.Struct("!BBHII")


def _payloads() -> list[bytes]:
    return [g711.lin2ulaw(frame.tobytes(), 2) for frame in frames_of(speech_like(1.0))]


class CorePaths:
    """Some calls' audio paths with one bidirectional stream each, fed and ticked without a driver."""

    def __init__(self, calls: int) -> None:
        self._kept: list[object] = []
        self._calls = calls
        pool = self._new("tp_pool *")
        if lib.tp_pool_init(pool, self._new("uint8_t[]", POOL_BYTES), POOL_BYTES) <= 0:
            raise WrongAnswerError("the pool has no blocks")
        dialect = dialect_at(Role.PLATFORM)
        stream_config = self._new(
            "tp_stream_config *",
            {
                "role": lib.TP_ROLE_PLATFORM,
                "framing": lib.TP_FRAMING_WEBSOCKET,
                "format": (8000, PCMU),
                "tracks": TRACK_INBOUND,
                "bidirectional": 1,
                "masked": 1,
                "message_ms": 20,
                "bound_ms": 40_000,
                "reserve_ms": 1000,
                "max_message_bytes": 1 << 20,
                "mask_seed": 0x9E3779B97F4A7C15,
                "templates": [self._keep(compile_template(dialect.media_template("inbound"))), ffi.NULL],
                "shape": self._keep(compile_shape(dialect.media_shape())),
                "encoding_name": b"audio/x-mulaw",
            },
        )
        self._paths: list[Any] = []
        self._streams: list[Any] = []
        for slot in range(calls):
            config = self._new(
                "tp_path_config *",
                {
                    "leg_kind": lib.TP_LEG_RTP,
                    "leg_format": (8000, PCMU),
                    "ptime_ms": 20,
                    "slot": slot,
                    "event_payload_type": 255,
                    "ssrc": 1 + slot,
                    "jitter_min_ms": 20,
                    "jitter_max_ms": 200,
                },
            )
            path, stream = self._new("tp_path *"), self._new("tp_stream *")
            ring = self._new("uint8_t[]", lib.tp_path_jitter_bytes(config))
            statuses = (
                lib.tp_path_init(path, pool, config, ring, 0),
                lib.tp_stream_init(stream, pool, stream_config, 8000, 0),
                lib.tp_path_attach(path, 0, stream),
            )
            if any(status < 0 for status in statuses):
                raise WrongAnswerError(f"a path could not be set up: {statuses}")
            self._paths.append(path)
            self._streams.append(stream)
        self._array = self._new("tp_path *[]", self._paths)
        self._flags = self._new("uint8_t[]", calls)
        self._bytes = self._new("uint8_t[]", ROOM_PER_CALL * calls)
        self._outputs = self._new("tp_output[]", 4 * calls)
        self.outbox = self._new("tp_outbox *", (self._bytes, self._outputs, ROOM_PER_CALL * calls, 0, 4 * calls, 0))
        self._report = self._new("tp_received *")
        self._packet = self._new("uint8_t[]", PACKET_BYTES)
        self._packet_bytes = ffi.buffer(self._packet)
        payloads = _payloads()
        make = wsproto_send(Role.APPLICATION)
        frames = [make(g711.ulaw2lin(payload, 2)) for payload in payloads]
        self._messages = [(self._new("uint8_t[]", frame), len(frame)) for frame in frames]
        self._payloads = payloads
        self._number = 0

    def _keep(self, cdata: Any) -> Any:
        self._kept.append(cdata)
        return cdata

    def _new(self, kind: str, *values: Any) -> Any:
        return self._keep(ffi.new(kind, *values))

    def step(self) -> None:
        """Let 20 ms pass for every call: a packet in, a message in, one tick for all."""
        number = self._number
        self._number += 1
        now = number * PTIME_NS
        payload = self._payloads[number % len(self._payloads)]
        message, n_bytes = self._messages[number % len(self._messages)]
        stamp = number * SAMPLES & 0xFFFFFFFF
        self._packet_bytes[:] = rtp_header.pack(0x80, 0, number & 0xFFFF, stamp, 7) + payload
        packet, report = self._packet, self._report
        receive_rtp, receive = lib.tp_path_receive_rtp, lib.tp_stream_receive
        for path in self._paths:
            receive_rtp(path, packet, PACKET_BYTES, now)
        for stream in self._streams:
            receive(stream, report, message, n_bytes, now)
        self.outbox.used = self.outbox.n_outputs = 0
        lib.tp_path_tick_many(self._array, self._calls, now, self.outbox, self._flags)

    def run(self) -> None:
        """Let some frames pass."""
        for _ in range(STEPS):
            self.step()

    def check(self) -> dict[str, float]:
        """Let a second pass and see that every call sends and hears what it should; say how well.

        Raises:
            WrongAnswerError: a datagram or message is missing, or bears other audio than was given.
        """
        payloads = set(self._payloads)
        for number in range(50):
            self.step()
            outputs = [self._outputs[at] for at in range(self.outbox.n_outputs)]
            kinds = [output.kind for output in outputs]
            if kinds.count(lib.TP_OUTPUT_RTP) != self._calls:
                raise WrongAnswerError(f"step {number}: {kinds.count(lib.TP_OUTPUT_RTP)} datagrams")
            if number < 25:
                continue
            if kinds.count(lib.TP_OUTPUT_MESSAGE) != self._calls:
                raise WrongAnswerError(f"step {number}: {kinds.count(lib.TP_OUTPUT_MESSAGE)} messages")
            for output in outputs:
                sent = bytes(ffi.buffer(self._bytes + output.offset, output.length))
                if output.kind == lib.TP_OUTPUT_RTP and sent[12:] not in payloads:
                    raise WrongAnswerError(f"step {number}: the caller hears what the application did not play")
        concealed = sum(lib.tp_path_statistics(path).concealed_samples for path in self._paths)
        return {"concealed %": 100 * concealed / (50 * SAMPLES * self._calls)}


def rows() -> list[Row]:
    """Build the row of one call's 20 ms."""
    paths = CorePaths(CALLS)
    quality = paths.check()
    receive, send = wsproto_receive(Role.PLATFORM), wsproto_send(Role.PLATFORM)
    application = wsproto_send(Role.APPLICATION)
    payloads = _payloads()
    packets = [rtp_header.pack(0x80, 0, seq, seq * SAMPLES, 7) + payload for seq, payload in enumerate(payloads)]
    messages = [application(g711.ulaw2lin(payload, 2)) for payload in payloads]
    numbers = itertools.count()

    def run_python() -> None:
        for packet, message in zip(packets, messages, strict=True):
            rtp_header.unpack_from(packet)
            send(g711.ulaw2lin(packet[12:], 2))
            pcm = receive(message)
            seq = next(numbers)
            _ = rtp_header.pack(0x80, 0, seq & 0xFFFF, seq * SAMPLES & 0xFFFFFFFF, 7) + g711.lin2ulaw(pcm, 2)

    name = f"struct + json + base64 + {G711_NAME} + wsproto, no jitter buffer"
    return [
        Row(
            f"a call's 20 ms, both ways, {CALLS} calls a tick",
            Candidate("talkpath", paths.run, STEPS * CALLS, quality, keeps=(paths,)),
            [Candidate(name, run_python, len(packets))],
        )
    ]

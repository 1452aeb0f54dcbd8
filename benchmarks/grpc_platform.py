"""The load of `bench_grpc`: N calls of FreeClimb's, a connection each, that say 20 or 60 ms of audio when it is due.

One thread, the protocol by talkpath's own machine (the same for every echo under test), messages made beforehand. Calls
are spread over the time of one message, as real ones are. Lines on standard input:

    connect PORT   ->  {"connected": N}    "begin"  (a window's beginning, no answer)    "end"  ->  {counts}
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import sys
import time

from talkpath.wire.freeclimb_messages import METHOD, AppMessage, PlatformMessage
from talkpath.wire.grpc import Call, GrpcConnection


class Platform:
    """All the calls."""

    def __init__(self, calls: int, message_ms: int) -> None:
        self._n = calls
        self._period_s = message_ms / 1000
        self._selector = selectors.DefaultSelector()
        self._calls: list[tuple[socket.socket, GrpcConnection, Call]] = []
        self._at = 0
        self._due_s = 0.0
        self._counting = False
        self.sent = self.received = self.audio = self.late = self.wrong = 0
        audio = PlatformMessage()
        audio.notify_audio_data.audio_data = b"\x7f" * (8 * message_ms)
        audio.notify_audio_data.start_tstamp.seconds = audio.notify_audio_data.end_tstamp.seconds = 1_760_000_000
        audio.notify_audio_data.start_tstamp.nanos, audio.notify_audio_data.end_tstamp.nanos = 20_000_000, 40_000_000
        audio.notify_audio_data.sequence_num = 1000
        self._message = audio.SerializeToString()
        self._commands = b""

    def connect(self, port: int) -> None:
        """Begin the calls."""
        for number in range(self._n):
            link = socket.create_connection(("127.0.0.1", port))
            link.setblocking(False)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            machine = GrpcConnection(client=True)
            call = machine.open_call(METHOD, authority="localhost")
            start = PlatformMessage()
            start.notify_call_started.call_id = f"call-{number}"
            start.notify_call_started.content_type = "audio/mulaw;rate=8000"
            call.send(start.SerializeToString())
            self._calls.append((link, machine, call))
            self._selector.register(link, selectors.EVENT_READ, number)
            self._flush(number)
        self._due_s = time.monotonic() + 0.2
        print(json.dumps({"connected": len(self._calls)}), flush=True)

    def run(self) -> None:
        """Until standard input ends."""
        self._selector.register(sys.stdin, selectors.EVENT_READ, -1)
        while True:
            now = time.monotonic()
            while self._calls and now >= self._due_s:
                self._say(now)
                now = time.monotonic()
            for key, _ in self._selector.select(max(0.0, self._due_s - now) if self._calls else None):
                if key.data < 0:
                    if not self._obey():
                        return
                else:
                    self._read(key.data)

    def _say(self, now: float) -> None:
        self.late += now - self._due_s > 0.005
        self._calls[self._at][2].send(self._message)
        self.sent += 1
        self._flush(self._at)
        self._at = (self._at + 1) % self._n
        self._due_s += self._period_s / self._n

    def _flush(self, number: int) -> None:
        link, machine, _ = self._calls[number]
        data = machine.data_to_send()
        if data and link.send(data) != len(data):
            self.wrong += 1

    def _read(self, number: int) -> None:
        link, machine, call = self._calls[number]
        try:
            data = link.recv(65536)
        except BlockingIOError:
            return
        if not data:
            self.wrong += 1
            self._selector.unregister(link)
            return
        machine.receive(data, time.monotonic_ns())
        machine.next_events()
        while (message := call.next_message()) is not None:
            said = AppMessage.FromString(message)
            self.received += 1
            self.audio += len(said.audio_data.audio_data)
        self._flush(number)

    def _obey(self) -> bool:
        piece = os.read(sys.stdin.fileno(), 4096)
        *lines, self._commands = (self._commands + piece).split(b"\n")
        for line in lines:
            words = line.split()
            if words[0] == b"connect":
                self.connect(int(words[1]))
            elif words[0] == b"begin":
                self.sent = self.received = self.audio = self.late = self.wrong = 0
            elif words[0] == b"end":
                counts = {name: getattr(self, name) for name in ("sent", "received", "audio", "late", "wrong")}
                print(json.dumps(counts | {"cpu_s": time.process_time()}), flush=True)
        return bool(piece)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--calls", type=int, default=30)
    options.add_argument("--message-ms", type=int, default=20)
    given = options.parse_args()
    Platform(given.calls, given.message_ms).run()

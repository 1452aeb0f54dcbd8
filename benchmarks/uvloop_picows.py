"""The best peer: uvloop, picows, the same C codec as ours and one clock for all calls, without a task per call.

picows is a WebSocket library in Cython that calls back for each frame and writes to the socket at once; it sits 1-3 us
above the kernel, and no other Python library is near it. Around it one_clock.py does what can be done in Python. For
picows in particular: `send_reuse_external_bytearray`, so that header and mask go around and over the message where it
was written and nothing is copied; the payload of a frame is read by the JSON parser as a memoryview, where it arrived;
the loop's own transport, which here was no dearer than aiofastnet's; no pings of its own. A peer that takes no bytes
has its messages dropped, whole, until it does.
"""

from __future__ import annotations

import argparse

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from benchmarks.one_clock import Call, serve

TEXT = WSMsgType.TEXT
ROOM_FOR_HEADER = 14  # picows wants so much, whatever the header needs


class PicowsCall(Call, WSListener):
    """A call that is its own connection's listener."""

    room_for_header = ROOM_FOR_HEADER

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self._stalled = False

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Keep what sends."""
        self._send_message = transport.send_reuse_external_bytearray

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Take a message where it lies in the receive buffer."""
        if frame.msg_type is TEXT:
            self.receive_text(frame.get_payload_as_memoryview())
        elif frame.msg_type is WSMsgType.CLOSE:
            transport.disconnect()

    def pause_writing(self) -> None:
        """Drop from now on."""
        self._stalled = True

    def resume_writing(self) -> None:
        """Send again."""
        self._stalled = False

    def send_text(self, text: bytearray) -> None:
        """Send what has room in front for the header."""
        if self._stalled:
            self.frames_dropped += 1
        else:
            self._send_message(TEXT, text, ROOM_FOR_HEADER)


async def open_call(number: int, url: str) -> Call:
    """Connect with picows."""
    call = PicowsCall(number)
    await ws_connect(lambda: call, url, use_aiofastnet=False)
    return call


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--polled", action="store_true", help="one pass of the event loop for each tick")
    uvloop.run(serve(open_call, polled=options.parse_args().polled))

"""HTTP/2 for a few long streams, sans-IO, both roles.

A stream, as its `Stream` tells it (``ours`` is `Stream.done`, ``theirs`` is `Stream.peer_done`)::

    open        --END_STREAM received-->                       theirs
    open        --END_STREAM sent (`finish`)-->                ours
    ours        --END_STREAM received-->                       gone
    theirs      --END_STREAM sent-->                           gone
    any         --RST_STREAM received, GOAWAY below its id-->  gone   (`on_reset`)
    any         --`reset`-->                                   gone
    any         --the connection fails-->                      gone   (nobody is told: `receive` raised)

Two hands share the work. What opens and closes streams (HEADERS with HPACK, SETTINGS, RST_STREAM) is h2's, its
validation switched on: that is where HTTP/2 is intricate. What comes fifty times a second and call is dealt with here:
DATA, WINDOW_UPDATE and PING are a dozen lines of integers each, and an object per frame would cost several times that.
GOAWAY is ours too, since to h2 it is the end, and to a call in progress it is not. h2 sees no DATA but the empty one
that ends a stream, so that its view of which streams are open stays right.

Flow control. What came is acknowledged to a stream as its user takes it (`Stream.acknowledge`), so a user who does not
read stops his peer, and what waits is bounded by the window. The connection's window is all streams' windows together
and is given back on arrival: one stream that nobody reads must not stop the others.

Bounds: a frame 16 KiB, a header block `MAX_HEADER_BYTES`, streams as announced; of frames that cost work and carry
nothing (PING, SETTINGS, RST_STREAM, PRIORITY, empty DATA, unknown ones) `FLOOD_BURST` at once and `FLOOD_PER_S` after.

Source: RFC 9113 (HTTP/2), RFC 7541 (HPACK, by way of h2); the bounds answer CVE-2019-9511 to 9518, CVE-2023-44487.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from talkpath.errors import LocalWireError, RemoteWireError

Headers = Sequence[tuple[bytes, bytes]]

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
END_STREAM = ACK = 1
END_HEADERS, PADDED = 4, 8

NO_ERROR = int(ErrorCodes.NO_ERROR)
PROTOCOL_ERROR = int(ErrorCodes.PROTOCOL_ERROR)
FLOW_CONTROL_ERROR = int(ErrorCodes.FLOW_CONTROL_ERROR)
STREAM_CLOSED = int(ErrorCodes.STREAM_CLOSED)
FRAME_SIZE_ERROR = int(ErrorCodes.FRAME_SIZE_ERROR)
REFUSED_STREAM = int(ErrorCodes.REFUSED_STREAM)
CANCEL = int(ErrorCodes.CANCEL)
ENHANCE_YOUR_CALM = int(ErrorCodes.ENHANCE_YOUR_CALM)

DEFAULT_WINDOW_BYTES: Final = 65535
MAX_WINDOW_BYTES: Final = (1 << 31) - 1
MAX_FRAME_BYTES: Final = 16384
"""Of a payload; the least that may be announced, and audio needs no more."""
MAX_HEADER_BYTES: Final = 16 * 1024
"""Of one header block, compressed and as a list."""
MAX_OUT_BYTES: Final = 64 * 1024
"""Of DATA frames that are made before the link takes them; the rest waits in its stream, where it can be counted."""
MAX_ANSWER_BYTES: Final = 256 * 1024
"""What a peer that asks and never reads may have waiting for it before it is hung up on."""
FLOOD_BURST: Final = 1000
FLOOD_PER_S: Final = 1000
"""Estimators of bandwidth ping once per round trip while data comes; nobody needs more than this."""

_HEADER: Final = struct.Struct(">HBBBL")


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Return one frame. Source: RFC 9113 4.1."""
    length = len(payload)
    return _HEADER.pack(length >> 8, length & 0xFF, kind, flags, stream_id) + payload


class Http2Error(RemoteWireError):
    """The peer broke HTTP/2, or a bound of ours; `code` is what GOAWAY tells it."""

    def __init__(self, message: str, code: int, kind: str) -> None:
        super().__init__(message, wire="http2", kind=kind)
        self.code = code


class _Guardian(H2Connection):
    MAX_CLOSED_STREAMS = 256


class Stream:
    """One stream; subclasses say what becomes of what comes. The hooks are called within `Http2Connection.receive`."""

    __slots__ = ("_in_window", "_owed", "connection", "done", "ending", "gone", "out_window", "outgoing", "peer_done",
                 "stream_id")  # fmt: skip

    def __init__(self, connection: Http2Connection, stream_id: int) -> None:
        self.connection = connection
        self.stream_id = stream_id
        self.outgoing = bytearray()
        """What waits for the peer's windows, or for the link."""
        self.out_window = connection.peer_window_bytes
        self._in_window = max(connection.window_bytes, DEFAULT_WINDOW_BYTES)  # a peer may not know our settings yet
        self._owed = 0
        self.ending = False
        """`finish` is to be called when `outgoing` is empty."""
        self.done = False
        """We have sent END_STREAM."""
        self.peer_done = False
        self.gone = False

    def on_headers(self, headers: Headers, ended: bool) -> None:
        """A header block came: request, response or trailers."""
        raise NotImplementedError

    def on_data(self, payload: bytes, n_bytes: int) -> None:
        """Data came; `n_bytes` with its padding are to be acknowledged."""
        raise NotImplementedError

    def on_end(self) -> None:
        """The peer sends no more; after the last of the other two."""
        raise NotImplementedError

    def on_reset(self, code: int) -> None:
        """The stream is gone before its time."""
        raise NotImplementedError

    def finish(self) -> None:
        """Say that we send no more; all that was to go before has gone."""
        self.connection.end_stream(self)

    def acknowledge(self, n_bytes: int) -> None:
        """Let the peer send so much more. Told in steps of half a window."""
        self._owed += n_bytes
        connection = self.connection
        if self._owed >= connection.window_step and not (self.peer_done or self.gone):
            connection.put(WINDOW_UPDATE, 0, self.stream_id, self._owed.to_bytes(4, "big"))
            self._in_window += self._owed
            self._owed = 0


class Http2Connection:
    """One end of a connection: bytes in by `receive`, bytes out by `data_to_send`. See the module.

    Args:
        client: our role.
        max_streams: that the peer may have open at once.
        window_bytes: how far a peer may send ahead of what is taken, per stream.
    """

    def __init__(self, *, client: bool, max_streams: int = 100, window_bytes: int = DEFAULT_WINDOW_BYTES) -> None:
        self.client = client
        self.streams: dict[int, Stream] = {}
        self.failure: Http2Error | None = None
        """Why this end gave the connection up; it stays that way."""
        self.greeted = False
        """The peer's settings have come: it speaks HTTP/2."""
        self.draining = False
        """No more streams begin: a GOAWAY has been sent or has come."""
        self.goaway_code: int | None = None
        """Of the peer's GOAWAY."""
        self.answered: bytes | None = None
        """What the last PING that was answered held."""
        self.window_bytes = window_bytes
        self.window_step = max(window_bytes // 2, 1)
        self.peer_window_bytes = DEFAULT_WINDOW_BYTES
        self._peer_max_frame = MAX_FRAME_BYTES
        self._peer_max_streams = MAX_WINDOW_BYTES
        self.out = bytearray()
        """Frames to be sent; `data_to_send` takes them."""
        self._out_window = DEFAULT_WINDOW_BYTES
        self.blocked = False
        """The link takes nothing now: data waits in its stream, where its owner can see it. Set by whoever sends."""
        self.held = False
        """Something waits that `blocked` or `MAX_OUT_BYTES` held back."""
        self._connection_window = max(DEFAULT_WINDOW_BYTES, min(max_streams * window_bytes, MAX_WINDOW_BYTES))
        self._in_window = self._connection_window
        self._unread = b""
        self._preface = b"" if client else PREFACE
        self._in_headers = 0
        """The stream whose header block is not whole yet."""
        self._header_bytes = 0
        self._last_local = 0
        self._last_remote = 0
        self._budget = float(FLOOD_BURST)
        self._budget_ns = self._now_ns = 0
        self._h2 = _Guardian(H2Configuration(client_side=client, header_encoding=None))
        settings = {
            SettingCodes.MAX_CONCURRENT_STREAMS: max_streams,
            SettingCodes.INITIAL_WINDOW_SIZE: window_bytes,
            SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADER_BYTES,
        }
        if client:
            settings[SettingCodes.ENABLE_PUSH] = 0
        self._h2.local_settings = Settings(client=client, initial_values=settings)
        self._h2.decoder.max_header_list_size = MAX_HEADER_BYTES
        self._h2.initiate_connection()
        self._take_h2()
        if self._connection_window > DEFAULT_WINDOW_BYTES:
            more = self._connection_window - DEFAULT_WINDOW_BYTES
            self.put(WINDOW_UPDATE, 0, 0, more.to_bytes(4, "big"))

    def on_request(self, stream_id: int) -> Stream:
        """Return the stream for a request that has just come. Server."""
        raise NotImplementedError

    # Reading -----------------------------------------------------------------------------------------------------

    def receive(self, data: bytes | bytearray | memoryview, now_ns: int) -> None:
        """Take what came; hooks of streams are called.

        Raises:
            Http2Error: the peer broke the rules, now or before. What tells it so is in `data_to_send`.
        """
        if self.failure is not None:
            raise self.failure
        self._now_ns = now_ns
        whole = self._unread + data if self._unread else bytes(data)
        if self._preface:
            n = min(len(self._preface), len(whole))
            if whole[:n] != self._preface[:n]:
                raise self._fail("the connection does not begin as HTTP/2 does", PROTOCOL_ERROR, "not_http2")
            if n < len(self._preface):
                self._unread = whole
                return
            self._preface = b""
            self._h2.receive_data(PREFACE)
            whole = whole[n:]
        at, end = 0, len(whole)
        while end - at >= 9:
            high, low, kind, flags, stream_id = _HEADER.unpack_from(whole, at)
            if not self.greeted and kind != SETTINGS:
                raise self._fail("the first frame is not SETTINGS", PROTOCOL_ERROR, "not_http2")
            stop = at + 9 + (high << 8 | low)
            if stop - at - 9 > MAX_FRAME_BYTES:
                raise self._fail("a frame is longer than the settings allow", FRAME_SIZE_ERROR, "frame_too_long")
            if stop > end:
                break
            if kind == DATA and not self._in_headers:
                self._on_data(stream_id & 0x7FFFFFFF, flags, whole[at + 9 : stop])
            else:
                self._on_frame(kind, flags, stream_id & 0x7FFFFFFF, whole[at:stop])
            at = stop
        self._unread = whole[at:]
        if len(self.out) > MAX_ANSWER_BYTES:
            raise self._fail("the peer asks and does not read the answers", ENHANCE_YOUR_CALM, "flood")

    def _on_frame(self, kind: int, flags: int, stream_id: int, whole: bytes) -> None:
        if self._in_headers and (kind != CONTINUATION or stream_id != self._in_headers):
            raise self._fail("a header block was interrupted", PROTOCOL_ERROR, "bad_frame")
        if kind == WINDOW_UPDATE:
            self._on_window_update(stream_id, whole[9:])
        elif kind in (HEADERS, CONTINUATION):
            self._header_bytes = len(whole) + (self._header_bytes if kind == CONTINUATION else 0)
            if self._header_bytes > MAX_HEADER_BYTES:
                raise self._fail("a header block is too long", ENHANCE_YOUR_CALM, "headers_too_long")
            self._in_headers = 0 if flags & END_HEADERS else stream_id
            if self._in_headers:
                self._spend()
            self._feed(whole)
        elif kind == PING:
            self._on_ping(stream_id, flags, whole[9:])
        elif kind == GOAWAY:
            self._on_goaway(stream_id, whole[9:])
        else:
            self._spend()
            if kind in (SETTINGS, RST_STREAM, PUSH_PROMISE):
                self._feed(whole)
                if kind == SETTINGS and not flags & ACK:
                    self.greeted = True

    def _on_data(self, stream_id: int, flags: int, payload: bytes) -> None:
        n_bytes = len(payload)
        self._in_window -= n_bytes
        if self._in_window < 0:
            raise self._fail("more came than the connection's window", FLOW_CONTROL_ERROR, "flow_control")
        if self._in_window <= self._connection_window // 2:
            self.put(WINDOW_UPDATE, 0, 0, (self._connection_window - self._in_window).to_bytes(4, "big"))
            self._in_window = self._connection_window
        if flags & PADDED:
            if n_bytes == 0 or payload[0] >= n_bytes:
                raise self._fail("a frame is all padding and more", PROTOCOL_ERROR, "bad_frame")
            payload = payload[1 : n_bytes - payload[0]]
        if not payload and not flags & END_STREAM:
            self._spend()
        stream = self.streams.get(stream_id)
        if stream is None:
            if self._is_idle(stream_id):
                raise self._fail("data came on a stream that was never opened", PROTOCOL_ERROR, "bad_stream")
            return  # It was under way when the stream ended.
        if stream.peer_done:
            self.reset(stream, STREAM_CLOSED)
            stream.on_reset(STREAM_CLOSED)
            return
        stream._in_window -= n_bytes
        if stream._in_window < 0:
            raise self._fail("more came than a stream's window", FLOW_CONTROL_ERROR, "flow_control")
        if n_bytes:
            stream.on_data(payload, n_bytes)
        if flags & END_STREAM and not stream.gone:
            self._feed(frame(DATA, END_STREAM, stream_id))
            self._peer_is_done(stream)

    def _on_window_update(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise self._fail("a WINDOW_UPDATE has not 4 bytes", FRAME_SIZE_ERROR, "bad_frame")
        more = int.from_bytes(payload, "big") & MAX_WINDOW_BYTES
        if stream_id == 0:
            self._out_window += more
            if not more or self._out_window > MAX_WINDOW_BYTES:
                raise self._fail("the connection's window is impossible", FLOW_CONTROL_ERROR, "flow_control")
            self._move_all()
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            if self._is_idle(stream_id):
                raise self._fail("a window of a stream that was never opened", PROTOCOL_ERROR, "bad_stream")
            return
        stream.out_window += more
        if not more or stream.out_window > MAX_WINDOW_BYTES:
            self.reset(stream, FLOW_CONTROL_ERROR)
            stream.on_reset(FLOW_CONTROL_ERROR)
            return
        self._move(stream)

    def _on_ping(self, stream_id: int, flags: int, payload: bytes) -> None:
        if stream_id or len(payload) != 8:
            raise self._fail(
                "a PING of the wrong shape", PROTOCOL_ERROR if stream_id else FRAME_SIZE_ERROR, "bad_frame"
            )
        self._spend()
        if flags & ACK:
            self.answered = payload
        else:
            self.put(PING, ACK, 0, payload)

    def _on_goaway(self, stream_id: int, payload: bytes) -> None:
        if stream_id or len(payload) < 8:
            raise self._fail(
                "a GOAWAY of the wrong shape", PROTOCOL_ERROR if stream_id else FRAME_SIZE_ERROR, "bad_frame"
            )
        self._spend()
        self.draining = True
        last = int.from_bytes(payload[:4], "big") & MAX_WINDOW_BYTES
        self.goaway_code = int.from_bytes(payload[4:8], "big")
        for stream in [one for one in self.streams.values() if one.stream_id > last and self._is_ours(one.stream_id)]:
            self.reset(stream, CANCEL)
            stream.on_reset(REFUSED_STREAM)

    def _feed(self, whole: bytes) -> None:
        """Have h2 deal with one frame, and act on what it says."""
        try:
            events = self._h2.receive_data(whole)
        except Exception as exc:  # whatever h2 stumbles over, it is the peer's bytes it stumbled over
            code = int(getattr(exc, "error_code", PROTOCOL_ERROR))
            raise self._fail(f"h2: {type(exc).__name__}", code, "http2") from exc
        self._take_h2()
        for event in events:
            self._on_event(event)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self._last_remote = event.stream_id
            stream = self.on_request(event.stream_id)
            self.streams[event.stream_id] = stream
            if self.draining:
                self.reset(stream, REFUSED_STREAM)
                return
            self._on_headers(stream, event.headers, event.stream_ended is not None)
        elif isinstance(event, (ResponseReceived, TrailersReceived)):
            known = self.streams.get(event.stream_id)
            if known is not None:
                self._on_headers(known, event.headers, event.stream_ended is not None)
        elif isinstance(event, StreamReset):
            stream_or_none = self.streams.pop(event.stream_id, None)
            if stream_or_none is not None:
                self._gone(stream_or_none)
                stream_or_none.on_reset(int(event.error_code))
        elif isinstance(event, RemoteSettingsChanged):
            self._on_settings(event.changed_settings)

    def _on_headers(self, stream: Stream, headers: Iterable[Any], ended: bool) -> None:
        stream.on_headers([(bytes(name), bytes(value)) for name, value in headers], ended)
        if ended and not stream.gone:
            self._peer_is_done(stream)

    def _on_settings(self, changed: dict[Any, Any]) -> None:
        window = changed.get(SettingCodes.INITIAL_WINDOW_SIZE)
        if window is not None:
            delta = int(window.new_value) - self.peer_window_bytes
            self.peer_window_bytes += delta
            for stream in self.streams.values():
                stream.out_window += delta
                if stream.out_window > MAX_WINDOW_BYTES:
                    raise self._fail("the settings make a window impossible", FLOW_CONTROL_ERROR, "flow_control")
        size = changed.get(SettingCodes.MAX_FRAME_SIZE)
        if size is not None:
            self._peer_max_frame = int(size.new_value)
        streams = changed.get(SettingCodes.MAX_CONCURRENT_STREAMS)
        if streams is not None:
            self._peer_max_streams = int(streams.new_value)
        self._move_all()

    def _peer_is_done(self, stream: Stream) -> None:
        stream.peer_done = True
        stream.on_end()
        self._forget_finished(stream)

    def _is_ours(self, stream_id: int) -> bool:
        return stream_id % 2 == int(self.client)

    def _is_idle(self, stream_id: int) -> bool:
        return stream_id == 0 or stream_id > (self._last_local if self._is_ours(stream_id) else self._last_remote)

    def _spend(self) -> None:
        earned = (self._now_ns - self._budget_ns) * 1e-9 * FLOOD_PER_S
        self._budget_ns = self._now_ns
        self._budget = min(self._budget + max(earned, 0.0), FLOOD_BURST) - 1
        if self._budget < 0:
            raise self._fail("too many frames that carry nothing", ENHANCE_YOUR_CALM, "flood")

    def _fail(self, message: str, code: int, kind: str) -> Http2Error:
        """Give the connection up: nothing is read or sent any more but the GOAWAY that says why."""
        self._h2.clear_outbound_data_buffer()
        self.failure = failure = Http2Error(message, code, kind)
        self.draining = True
        for stream in self.streams.values():
            self._gone(stream)
        self.streams.clear()
        self.put(GOAWAY, 0, 0, self._last_remote.to_bytes(4, "big") + code.to_bytes(4, "big"))
        return failure

    # Writing -----------------------------------------------------------------------------------------------------

    def data_to_send(self) -> bytes:
        """Return all that is to leave now, to be sent in one piece and in this order; call again until it is empty."""
        if self.held and not self.blocked:
            self.held = False
            self._move_all()
        if not self.out:
            return b""
        out = bytes(self.out)
        self.out.clear()
        return out

    def put(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Write one frame."""
        self.out += frame(kind, flags, stream_id, payload)

    def _take_h2(self) -> None:
        self.out += self._h2.data_to_send()

    def next_stream_id(self) -> int:
        """Return the id a new stream of ours has. Raises LocalWireError: the peer lets none begin."""
        if self.draining or self.failure is not None:
            raise LocalWireError("the connection takes no more streams", wire="http2", kind="draining")
        ours = sum(1 for stream_id in self.streams if self._is_ours(stream_id))
        if ours >= self._peer_max_streams:
            raise LocalWireError(f"the peer allows {self._peer_max_streams} streams", wire="http2", kind="max_streams")
        return self._last_local + 2 if self._last_local else 1

    def open_stream(self, stream: Stream, headers: Headers) -> None:
        """Begin a stream of ours, whose id is `next_stream_id`'s. Client."""
        self._h2.send_headers(stream.stream_id, list(headers))
        self._take_h2()
        self._last_local = stream.stream_id
        self.streams[stream.stream_id] = stream

    def send_headers(self, stream: Stream, headers: Headers, *, end: bool = False) -> None:
        """Send a response's headers or its trailers (`end`)."""
        self._h2.send_headers(stream.stream_id, list(headers), end_stream=end)
        self._take_h2()
        if end:
            stream.done = True
            self._forget_finished(stream)

    def send_data(self, stream: Stream, data: bytes) -> None:
        """Send as far as the windows allow; the rest waits in `stream.outgoing`."""
        n = len(data)
        if (
            not stream.outgoing
            and 0 < n <= min(stream.out_window, self._out_window, self._peer_max_frame)
            and not (self.blocked or stream.gone or stream.ending)
            and len(self.out) < MAX_OUT_BYTES
        ):
            self.out += _HEADER.pack(n >> 8, n & 0xFF, DATA, 0, stream.stream_id) + data
            stream.out_window -= n
            self._out_window -= n
            return
        stream.outgoing += data
        self._move(stream)

    def end(self, stream: Stream) -> None:
        """Have `stream.finish` called behind what waits."""
        stream.ending = True
        self._move(stream)

    def end_stream(self, stream: Stream) -> None:
        """Send END_STREAM now."""
        self._h2.end_stream(stream.stream_id)
        self._take_h2()
        stream.done = True
        self._forget_finished(stream)

    def _move_all(self) -> None:
        # In turns: whoever had a piece of the connection's window comes last the next time.
        for stream in list(self.streams.values()):
            waiting = len(stream.outgoing)
            if waiting or stream.ending:
                self._move(stream)
                if 0 < len(stream.outgoing) < waiting and not stream.gone:
                    self.streams[stream.stream_id] = self.streams.pop(stream.stream_id)

    def _move(self, stream: Stream) -> None:
        outgoing = stream.outgoing
        while outgoing and not stream.gone:
            n = min(len(outgoing), stream.out_window, self._out_window, self._peer_max_frame)
            if n <= 0:
                return
            if self.blocked or len(self.out) >= MAX_OUT_BYTES:
                self.held = True
                return
            self.out += _HEADER.pack(n >> 8, n & 0xFF, DATA, 0, stream.stream_id)
            self.out += outgoing[:n]
            del outgoing[:n]
            stream.out_window -= n
            self._out_window -= n
        if stream.ending and not stream.done and not stream.gone:
            stream.finish()

    def reset(self, stream: Stream, code: int) -> None:
        """End a stream at once; `on_reset` is not called."""
        if self.streams.pop(stream.stream_id, None) is None:
            return
        self._gone(stream)
        with contextlib.suppress(ProtocolError):  # h2 may have closed it for an error of its own
            self._h2.reset_stream(stream.stream_id, code)
        self._take_h2()

    def _forget_finished(self, stream: Stream) -> None:
        if stream.done and stream.peer_done and self.streams.pop(stream.stream_id, None) is not None:
            self._gone(stream)

    def _gone(self, stream: Stream) -> None:
        stream.gone = True
        stream.outgoing.clear()

    def go_away(self, code: int = NO_ERROR) -> None:
        """Take no more streams; those that live go on. Idempotent."""
        if not self.draining:
            self.draining = True
            self.put(GOAWAY, 0, 0, self._last_remote.to_bytes(4, "big") + code.to_bytes(4, "big"))

    def ping(self, payload: bytes) -> None:
        """Ask whether the peer is there; its answer is in `answered`."""
        self.put(PING, 0, 0, payload)

"""A gRPC client and a gRPC server of ours, joined in memory; and each against h2 alone, which sends what it is told."""

from __future__ import annotations

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived

from talkpath.wire.grpc import Call, CallReceived, GrpcConnection, GrpcOptions

PATH = "/peer.Service/Talk"


class Pair:
    """Both machines; `settle` carries bytes to and fro until there are none."""

    def __init__(self, client: GrpcOptions | None = None, server: GrpcOptions | None = None) -> None:
        self.client = GrpcConnection(client=True, options=client or GrpcOptions())
        self.server = GrpcConnection(client=False, paths=[PATH], options=server or GrpcOptions())
        self.to_server: list[bytes] = []
        self.to_client: list[bytes] = []
        self.settle()

    def settle(self) -> None:
        while True:
            up, down = self.client.data_to_send(), self.server.data_to_send()
            if not up and not down:
                return
            if up:
                self.to_server.append(up)
                self.server.receive(up, 0)
            if down:
                self.to_client.append(down)
                self.client.receive(down, 0)

    def open(self, **options: object) -> tuple[Call, Call]:
        """Begin a call. -> its client's end, its server's end"""
        ours = self.client.open_call(PATH, authority="peer", **options)  # type: ignore[arg-type]
        self.settle()
        begun = [event.call for event in self.server.next_events() if isinstance(event, CallReceived)]
        assert len(begun) == 1
        return ours, begun[0]


def take_all(call: Call) -> list[bytes]:
    """Take all messages that have come."""
    messages = []
    while (message := call.next_message()) is not None:
        messages.append(message)
    return messages


REQUEST = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", PATH),
    (":authority", "peer"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]


def message(payload: bytes) -> bytes:
    return b"\0" + len(payload).to_bytes(4, "big") + payload


class Stranger:
    """A client that is h2 alone, against our server: it sends what it is told."""

    def __init__(self, options: GrpcOptions | None = None) -> None:
        self.server = GrpcConnection(client=False, paths=[PATH], options=options or GrpcOptions())
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.headers: dict[str, str] = {}
        self.body = b""
        self.ended = False
        self.reset: int | None = None
        self.settle()

    def settle(self) -> None:
        while True:
            up = self.h2.data_to_send()
            if up:
                self.server.receive(up, 0)
            down = self.server.data_to_send()
            if not up and not down:
                return
            for event in self.h2.receive_data(down):
                if isinstance(event, (ResponseReceived, TrailersReceived)):
                    self.headers |= dict(event.headers)  # type: ignore[arg-type]
                elif isinstance(event, DataReceived):
                    self.body += event.data
                elif isinstance(event, StreamEnded):
                    self.ended = True
                elif isinstance(event, StreamReset):
                    self.reset = int(event.error_code)

    def request(self, **changes: str | None) -> None:
        fields = {name: value for name, value in (dict(REQUEST) | changes).items() if value is not None}
        self.h2.send_headers(1, list(fields.items()))
        self.settle()


class StrangeServer:
    """A server that is h2 alone, against our client."""

    def __init__(self) -> None:
        self.client = GrpcConnection(client=True)
        self.h2 = H2Connection(H2Configuration(client_side=False))
        self.h2.initiate_connection()
        self.call = self.client.open_call(PATH, authority="peer")
        self.settle()

    def settle(self) -> None:
        while True:
            up, down = self.client.data_to_send(), self.h2.data_to_send()
            if not up and not down:
                return
            if up:
                self.h2.receive_data(up)
            if down:
                self.client.receive(down, 0)


OK_HEADERS = [(":status", "200"), ("content-type", "application/grpc")]

"""Who owns a connection: what a carrier tells of what is not plain media, and of its end."""

from __future__ import annotations

from typing import Protocol

from talkpath.errors import RemoteWireError


class ConnectionOwner(Protocol):
    """Who gets what is not plain media. All synchronous, called within a driver's step."""

    def on_text(self, payload: bytes, now_ns: int) -> None: ...

    def on_binary(self, payload: bytes, now_ns: int) -> None: ...

    hears_media: bool
    """Whether `on_media` has anything to do."""

    def on_media(self, now_ns: int) -> None:
        """The native core took media messages."""
        ...

    def on_peer_closed(self, code: int | None) -> None:
        """The peer said goodbye (a code) or just closed the connection (None)."""
        ...

    def on_broken(self, exc: OSError) -> None: ...

    def on_protocol_error(self, exc: RemoteWireError) -> None: ...

    def on_full(self) -> None:
        """Bytes wait for the socket: run `Connection.flush` in a task."""
        ...

    def on_overflow(self) -> None:
        """A control message found no room."""
        ...

    def failed(self, exc: Exception) -> None:
        """Something raised while a message was dealt with: end this connection; nobody else is disturbed."""
        ...

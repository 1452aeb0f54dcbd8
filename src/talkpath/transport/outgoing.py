"""What a carrier sends on a link of its own: at once what the link takes, the rest as the peer reads.

Theory of operation. In the step nothing waits: what the link does not take lies in `Unsent`, and everything after it
goes behind it. The owner is told, and a task of its calls `flush`. One flush at a time waits for the link; a second, a
goodbye's for instance, waits for the first.
"""

from __future__ import annotations

import math

import trio

from talkpath.transport.link import NOT_OURS, Link, SocketLink, TlsLink
from talkpath.transport.owner import ConnectionOwner
from talkpath.transport.unsent import Unsent


class Outgoing:
    """The sending side of a carrier whose link is its own."""

    __slots__ = ("_flushing", "_owner", "_unsent", "broken", "link", "peer_gone")

    def __init__(self, link: Link, owner: ConnectionOwner, *, live: bool) -> None:
        self.link = link
        self._owner = owner
        self._unsent = Unsent(live=live)
        self._flushing: trio.Event | None = None
        self.broken = False
        self.peer_gone = False

    def backlogged(self) -> bool:
        """Whether bytes wait for the socket."""
        return bool(self._unsent) or self.link.unsent()

    def media_dropped_so_far(self) -> int:
        """Return how many media messages found no room."""
        return self._unsent.media_dropped

    def _send_media(self, framed: memoryview) -> None:
        if self._unsent:
            self._unsent.add_media(framed)
        else:
            self._send_now(framed)

    def _send_control(self, data: bytes) -> None:
        if not self._unsent:
            self._send_now(data)
        elif not self._unsent.add_control(data):
            self._owner.on_overflow()

    def _send_now(self, data: bytes | memoryview) -> None:
        """Give the link what it takes; what it does not waits, and the owner's task sees to it."""
        try:
            n = self.link.send(data)
        except BlockingIOError:
            n = 0
        except OSError as exc:
            self._break(exc)
            return
        if n < len(data):
            self._unsent.add_rest(data[n:])
            self._owner.on_full()
        elif self.link.unsent():
            self._owner.on_full()

    def _break(self, exc: OSError) -> None:
        self.peer_gone = True
        if not self.broken:
            self.broken = True
            if exc.errno in NOT_OURS and isinstance(self.link, (SocketLink, TlsLink)):
                self.link.disown()
            self._owner.on_broken(exc)

    async def flush(self, stall_s: float = math.inf) -> bool:
        """Hand over what waits as the peer reads. Cancellation: what was not sent still waits.

        Returns:
            False when the peer has taken nothing for `stall_s`. One that reads slowly loses audio, not its stream.

        Raises nothing: a broken link is reported to the owner.
        """
        while self._flushing is not None:
            await self._flushing.wait()  # A goodbye finds the send task at it; two cannot wait for one socket.
        self._flushing = done = trio.Event()
        try:
            while self.backlogged() and not self.broken:
                with trio.move_on_after(stall_s) as scope:
                    await self.link.wait_writable()
                if scope.cancelled_caught:
                    return False
                try:
                    if not self._flush_once():
                        return True
                except BlockingIOError:
                    continue
                except OSError as exc:
                    self._break(exc)
        except trio.ClosedResourceError:
            self.broken = True  # It was closed while we waited: what is over needs no flushing.
        finally:
            self._flushing = None
            done.set()
        return True

    def _flush_once(self) -> bool:
        """Give the link what it takes of what waits. -> whether there may be more to do"""
        self.link.flush()
        if self._unsent:
            self._unsent.sent(self.link.send(self._unsent.view()))
        return True

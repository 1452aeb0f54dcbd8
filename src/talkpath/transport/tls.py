"""TLS without sockets: records in memory, and the contexts that say whom to trust.

A `TlsRecords` is one end of a TLS connection. It takes and gives bytes and never waits, so that whoever owns the
socket (a `TlsLink`, the native core) reads cipher, has it decrypted and hands on the plaintext, and the other way
round. One call each way and message; nothing is raised while all goes well.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Callable
from typing import Any, NamedTuple

import trio

from talkpath.errors import ConfigError

Buffer = bytes | bytearray | memoryview

PIECE_BYTES = 4096
"""What is given to or taken from OpenSSL's memory buffers at once. They keep the room of their fullest moment for the
whole connection; a burst of seconds of audio passes through in pieces instead."""
_ALPN = ["http/1.1"]
_OLD_VERSIONS = ssl.OP_NO_SSLv3 | ssl.OP_NO_TLSv1 | ssl.OP_NO_TLSv1_1


Feed = Callable[[Buffer], object]
Read = Callable[[int, memoryview], int]
Take = Callable[[], bytes]


class TlsCalls(NamedTuple):
    """What a loop over many connections calls for each, without a frame of ours in between; see `TlsRecords.calls`."""

    feed: Feed
    """Takes cipher that has come."""
    read: Read
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO
    write: Feed
    take: Take
    """Returns all cipher that is to leave."""


class TlsRecords:
    """One end of TLS: plaintext to cipher and back, handshake, alerts, key updates. Sans-IO.

    The contract: first `shake` until it says that the handshake is complete; then `encrypt` what is to be sent and
    `decrypt` what arrives. Whenever `answering` is true there is something to send that nobody asked for (a flight of
    the handshake, the answer to a key update, an alert): send what `take` returns. What `encrypt`, `take` and
    `close_notify` return must leave in that order, all of it: a lost or exchanged byte is the end of the connection.

    Source: RFC 8446 (TLS 1.3), RFC 5246 (TLS 1.2); the arithmetic is OpenSSL's.
    """

    __slots__ = (
        "_broken",
        "_closed",
        "_failure",
        "_feed",
        "_in",
        "_out",
        "_read",
        "_take",
        "_tls",
        "_write",
        "answering",
        "ended",
        "more",
    )

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, server_hostname: str | None) -> None:
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=server_side, server_hostname=server_hostname)
        # What `SSLObject` itself calls in its read and write, where it has it: two Python frames less a message.
        direct: Any = getattr(self._tls, "_sslobj", self._tls)
        self._feed = self._in.write
        self._take = self._out.read
        self._write: Feed = direct.write
        self._read: Read = direct.read
        self.more = False
        """Whether `decrypt` has more to give (or an end to tell of) without any more cipher."""
        self.answering = False
        """Whether `take` has something that must be sent."""
        self.ended = False
        """Whether the peer has said close_notify: nothing comes after it."""
        self._broken = False
        self._closed = False
        self._failure: ssl.SSLError | None = None
        """What broke the connection, until it has been said."""

    def shake(self, cipher: Buffer = b"") -> bool:
        """Go on with the handshake, as far as `cipher` allows. -> whether it is complete

        Raises:
            ssl.SSLError: it failed; `take` has the alert that tells the peer why.
        """
        if cipher:
            self._feed(cipher)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError:
            self._broken = True
            raise
        finally:
            self.answering = self._out.pending > 0
        # What came in one flight with the end of the handshake is data already.
        self.more = self._in.pending > 0
        return True

    def encrypt(self, data: Buffer) -> bytes:
        """Return the records that carry `data`, behind whatever was to be sent before it.

        One record for up to 4 KiB: what belongs together in a tick costs least when it comes in one call.

        Raises:
            ssl.SSLError: the connection is broken, or we have said close_notify.
        """
        if 0 < len(data) <= PIECE_BYTES:
            self._write(data)
            return self._take()
        view = memoryview(data)
        parts = [self._take()]
        for at in range(0, len(view), PIECE_BYTES):
            self._write(view[at : at + PIECE_BYTES])
            parts.append(self._take())
        return b"".join(parts)

    def decrypt(self, cipher: Buffer, into: memoryview) -> int:
        """Take all of `cipher` and put its plaintext into `into`, which may be the memory that `cipher` lies in.

        Returns:
            The number of bytes of plaintext; 0 when no record is whole yet, or at the end (`ended`). Plaintext that
            found no room is kept: `more` is true, and ``decrypt(b"", into)`` gives it.

        Raises:
            ssl.SSLError: the peer sent a fatal alert, or what is no TLS; `take` may have an alert for it. Whatever
                came before that has been returned by then.
        """
        # Nearly always this is one whole record, or a few; then OpenSSL has taken the last byte with the last of them,
        # and that is seen from the outside. To ask it once more would raise, which costs as much as decrypting.
        if self.more or not 0 < len(cipher) <= PIECE_BYTES:
            return self._decrypt_pieces(cipher, into)
        self._feed(cipher)
        try:
            n: int = self._read(len(into), into)
        except ssl.SSLError as exc:
            return self._stopped(exc, 0)
        if self._in.pending or self._out.pending or not 0 < n < len(into):
            return self._decrypt_rest(into, n) if n else self._end(0)
        return n

    def calls(self) -> TlsCalls:
        """Return the steps that `encrypt` and `decrypt` nearly always come down to, for a loop that does them itself.

        To encrypt up to `PIECE_BYTES`: ``write(data)``, then send what ``take()`` returns. To decrypt as much, while
        `more` is false: ``feed(cipher)``, ``n = read(len(into), into)``. If that raised, gave nothing, or left anything
        `pending` in `incoming` or `outgoing`, it was no common case: `go_on` says what it was.
        """
        return TlsCalls(self._feed, self._read, self._in, self._out, self._write, self._take)

    def go_on(self, into: memoryview, n: int, exc: ssl.SSLError | None) -> int:
        """Bring a `decrypt` to its end that a loop began by `calls`: it had `n` bytes, or `exc`. Returns and raises as
        `decrypt` does.
        """
        if exc is not None:
            return self._stopped(exc, 0)
        return self._decrypt_rest(into, n) if n else self._end(0)

    def _decrypt_pieces(self, cipher: Buffer, into: memoryview) -> int:
        if self._broken:
            failure, self._failure = self._failure, None
            self.more = False
            raise failure or ssl.SSLError(ssl.SSL_ERROR_SSL, "the TLS connection is broken")
        if self._closed:
            self.more, self.ended = False, True
            return 0
        if len(cipher) <= PIECE_BYTES:
            self._feed(cipher)
            return self._decrypt_rest(into, 0)
        whole = bytes(cipher)  # plaintext of records that began earlier may overtake it where both lie in one buffer
        n = 0
        for at in range(0, len(whole), PIECE_BYTES):
            if self._broken or self._closed:
                break
            self._feed(whole[at : at + PIECE_BYTES])
            if n < len(into):
                n = self._decrypt_rest(into, n)
        return n

    def _decrypt_rest(self, into: memoryview, n: int) -> int:
        """Read until OpenSSL has no more or `into` is full, which holds `n` bytes already. -> bytes in it"""
        try:
            while n < len(into) and (self._in.pending or self._tls.pending()):
                got = self._read(len(into) - n, into[n:])
                if not got:
                    return self._end(n)
                n += got
        except ssl.SSLError as exc:
            return self._stopped(exc, n)
        self.more = self._tls.pending() > 0 or self._in.pending > 0
        self.answering = self._out.pending > 0
        return n

    def _stopped(self, exc: ssl.SSLError, n: int) -> int:
        """Say why there is no more now. What was read before an end or a failure is handed on first."""
        self.answering = self._out.pending > 0
        self.more = False
        if isinstance(exc, ssl.SSLWantReadError):
            return n
        if isinstance(exc, ssl.SSLZeroReturnError):  # both ends have said close_notify
            return self._end(n)
        self._in.read()  # nothing behind a failure is anybody's
        self._broken = True
        if n == 0:
            raise exc
        self._failure = exc.with_traceback(None)
        self.more = True
        return n

    def _end(self, n: int) -> int:
        """The peer has said close_notify; that is told when the `n` bytes before it have been handed on."""
        self._in.read()  # nothing behind it is anybody's
        self._closed = True
        self.answering = self._out.pending > 0
        self.more = n > 0
        self.ended = n == 0
        return n

    def receive_eof(self) -> None:
        """Say that the socket has come to its end.

        Raises:
            ssl.SSLEOFError: without a close_notify before it: nobody knows what is missing. The peer, or whoever
                stands between, is to blame.
        """
        if not self.ended:
            self._broken = True
            raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the connection ended without a TLS close_notify")

    def take(self) -> bytes:
        """Return what must be sent although nobody asked for it; empty when there is nothing."""
        self.answering = False
        return self._take()

    def close_notify(self) -> bytes:
        """Return what says that we send no more; `decrypt` goes on. Empty when the handshake never came to its end."""
        with contextlib.suppress(ssl.SSLError, ValueError):
            self._tls.unwrap()
        return self.take()

    def version(self) -> str | None:
        """Return the version in use (``TLSv1.3``); None before the handshake."""
        return self._tls.version()

    def peer_names(self) -> frozenset[str] | None:
        """Return what the peer's certificate names (subjectAltName); None where none was verified.

        Source: RFC 6125.
        """
        certificate = self._tls.getpeercert()
        if not certificate:
            return None
        return frozenset(str(entry[1]) for entry in certificate.get("subjectAltName", ()))

    def alpn_protocol(self) -> str | None:
        """Return the protocol that both ends agreed on; None when they named none."""
        return self._tls.selected_alpn_protocol()


def client_context(
    *,
    ca_file: str | os.PathLike[str] | None = None,
    cert_file: str | os.PathLike[str] | None = None,
    key_file: str | os.PathLike[str] | None = None,
    key_password: str | None = None,
) -> ssl.SSLContext:
    """Make a context for dialling: the peer's certificate and name are verified, TLS 1.2 or later.

    Args:
        ca_file: the authorities to trust, PEM; None takes the system's.
        cert_file, key_file: our own certificate, for servers that ask for one; PEM, the key in either file.
        key_password: of an encrypted key.

    Raises:
        ConfigError: a file cannot be used; says which.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as exc:
        raise _unusable("ca_file", exc) from None
    if cert_file is not None:
        _load_certificate(context, cert_file, key_file, key_password)
    elif key_file is not None:
        raise ConfigError("key_file is given without cert_file; a key is of use with its certificate only")
    return _tighten(context)


def server_context(
    cert_file: str | os.PathLike[str],
    key_file: str | os.PathLike[str] | None = None,
    *,
    client_ca_file: str | os.PathLike[str] | None = None,
    key_password: str | None = None,
) -> ssl.SSLContext:
    """Make a context for serving, TLS 1.2 or later.

    Args:
        cert_file, key_file: our certificate with its chain, PEM; the key in either file.
        client_ca_file: demand a certificate of these authorities from every client, and refuse whoever has none.
        key_password: of an encrypted key.

    Raises:
        ConfigError: a file cannot be used; says which.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load_certificate(context, cert_file, key_file, key_password)
    if client_ca_file is not None:
        try:
            context.load_verify_locations(client_ca_file)
        except OSError as exc:
            raise _unusable("client_ca_file", exc) from None
        context.verify_mode = ssl.CERT_REQUIRED
    return _tighten(context)


def _load_certificate(
    context: ssl.SSLContext,
    cert_file: str | os.PathLike[str],
    key_file: str | os.PathLike[str] | None,
    key_password: str | None,
) -> None:
    def password() -> str:
        # Without this OpenSSL would ask on the terminal, and everything would wait for an answer.
        if key_password is None:
            raise ConfigError("the key is encrypted; pass key_password, or a key that is not")
        return key_password

    try:
        context.load_cert_chain(cert_file, key_file, password)
    except OSError as exc:
        raise _unusable("cert_file" if key_file is None else "cert_file or key_file", exc) from None


def _unusable(name: str, exc: OSError) -> ConfigError:
    why = exc.reason if isinstance(exc, ssl.SSLError) else exc.strerror
    return ConfigError(f"{name} cannot be used ({why or type(exc).__name__}); it must be a readable PEM file")


def _tighten(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(_ALPN)
    return context


def check_context(context: object, *, server_side: bool) -> None:
    """See that a context somebody made is fit for media, and have it refuse renegotiation.

    Renegotiation (TLS 1.2 and before) would make reading wait for writing in the midst of a call, and nobody needs
    it; a context allows it unless told otherwise, so the option is set here.

    Raises:
        ConfigError: no context, the other end's, or one that allows less than TLS 1.2.
    """
    if not isinstance(context, ssl.SSLContext):
        raise ConfigError(f"tls_context is {type(context).__name__}; it must be an ssl.SSLContext or None")
    if context.protocol == (ssl.PROTOCOL_TLS_CLIENT if server_side else ssl.PROTOCOL_TLS_SERVER):
        wanted = "server_context" if server_side else "client_context"
        raise ConfigError(f"tls_context is one for the other end of a connection; make it with {wanted}()")
    lowest = context.minimum_version
    if lowest < ssl.TLSVersion.TLSv1_2 and (lowest > 0 or context.options & _OLD_VERSIONS != _OLD_VERSIONS):
        raise ConfigError(
            "tls_context allows versions before TLS 1.2; set its minimum_version to ssl.TLSVersion.TLSv1_2"
        )
    context.options |= ssl.OP_NO_RENEGOTIATION


_default_context: ssl.SSLContext | None = None


async def default_client_context() -> ssl.SSLContext:
    """Return the context of whoever passed none: made once, verifying against the system's authorities.

    To read them takes some 50 ms, in which nobody would hear anything: so that is done in a thread, once.

    Cancellation: the next one begins anew.
    """
    global _default_context
    if _default_context is None:
        made = await trio.to_thread.run_sync(client_context, abandon_on_cancel=True)
        _default_context = _default_context or made
    return _default_context

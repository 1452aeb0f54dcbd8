"""How a stream reaches its application: one attempt, the attempts of a beginning, the attempts of an outage."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import trio

from talkpath.errors import CallEnded, RemoteWireError
from talkpath.records import EndReason
from talkpath.transport.carrier import Carriage, open_carriage, parse_target
from talkpath.transport.upgrade import Target
from talkpath.transport.url_policy import DestinationForbidden

if TYPE_CHECKING:
    from talkpath.engine.call import Call
    from talkpath.engine.config import StreamSpec
    from talkpath.engine.outage import Outage
    from talkpath.wire.dialect import Dialect
    from talkpath.wire.entry import Wire


class Dialling:
    """The address of a stream taken apart, and how it is dialled; there while a stream is being connected.

    Raises:
        ConfigError: the address cannot be read.
    """

    __slots__ = ("_call", "_dialect", "_spec", "_target", "_wire")

    def __init__(self, call: Call, spec: StreamSpec, wire: Wire, dialect: Dialect) -> None:
        self._call = call
        self._spec = spec
        self._wire = wire
        self._dialect = dialect
        """Of the connection to be made."""
        self._target: Target = parse_target(wire.transport, spec.url)

    async def begin(self) -> Carriage:
        """Make the attempts that a stream begins with. Raises CallEnded, with the last one's failure."""
        config = self._call.engine.config
        reason, cause = EndReason.CONNECT_FAILED, None
        for attempt in range(config.connect_attempts):
            if attempt:
                await trio.sleep(config.connect_backoff_s * 2 ** (attempt - 1))
            try:
                return await self._attempt()
            except CallEnded as failure:
                reason, cause = failure.reason, failure.cause
            if isinstance(cause, DestinationForbidden):
                break
        raise CallEnded(reason, cause)

    async def again(self, outage: Outage) -> Carriage | None:
        """Try anew at growing distances; None when the outage has lasted too long."""
        with trio.move_on_at(outage.deadline):
            while True:
                await trio.sleep(outage.distance_s())
                try:
                    return await self._attempt()
                except CallEnded as failure:
                    outage.cause = failure.cause
                if isinstance(outage.cause, DestinationForbidden):
                    break
        return None

    async def _attempt(self) -> Carriage:
        config, spec = self._call.engine.config, self._spec
        fixed = list(spec.headers.items())
        if spec.authorization_bearer_token:
            fixed.append(("Authorization", f"Bearer {spec.authorization_bearer_token}"))
        # Each attempt has a nonce of its own: whoever remembers nonces must be able to refuse one that comes again.
        nonce = str(int.from_bytes(self._call.entropy(8), "big"))
        headers = [*fixed, *self._wire.upgrade_headers(spec.auth_token, nonce, self._target.url)]
        try:
            with trio.fail_after(config.connect_timeout_s):
                return await open_carriage(
                    self._wire.transport,
                    self._target,
                    headers=headers,
                    subprotocol=self._wire.subprotocol,
                    method=self._wire.grpc_method,
                    wrap=self._dialect.wrap_media,
                    context=config.tls_context,
                    policy=config.stream_policy,
                )
        except trio.TooSlowError as exc:
            raise CallEnded(EndReason.HANDSHAKE_TIMED_OUT, exc) from None
        except RemoteWireError as exc:
            raise CallEnded(EndReason.HANDSHAKE_REFUSED, exc) from None
        except (OSError, ssl.SSLError) as exc:
            raise CallEnded(EndReason.CONNECT_FAILED, exc) from None

"""What a stream tells its owner's web server: an event of the engine's, written in the stream's wire and scheme."""

from __future__ import annotations

from typing import TYPE_CHECKING

from talkpath.engine.callbacks import CallbackQueue
from talkpath.engine.config import TRACKS
from talkpath.errors import ConfigError
from talkpath.wire.entry import StreamAttributes
from talkpath.wire.status import StatusEvent, StatusKind

if TYPE_CHECKING:
    from talkpath.engine.stream_life import StreamLife

IN_PASSING = (StatusKind.PLAYED, StatusKind.CLEARED, StatusKind.DEGRADED)
"""What an application can cause at will."""


def tell(
    stream: StreamLife,
    queue: CallbackQueue,
    kind: StatusKind,
    *,
    reason: str = "",
    name: str = "",
    duration_s: int = 0,
) -> None:
    """Queue a status callback behind the stream's others; the engine's own nursery delivers it."""
    spec, call, wire = stream.spec, stream.call, stream.wire
    event = StatusEvent(
        kind=kind,
        call_id=call.call_id,
        stream_id=stream.stream_id,
        at_unix_s=call.engine.wall_clock(),
        from_number=call.from_number,
        to_number=call.to_number,
        direction=call.direction,
        account_id=stream.account_id,
        control_id=stream.control_id,
        stream_name=spec.name,
        track=spec.track,
        service_url=spec.url,
        name=name,
        reason=reason,
        duration_s=duration_s,
        stream_attributes=wire.stream_attributes(
            StreamAttributes(
                bidirectional=spec.bidirectional,
                tracks=TRACKS[spec.track],
                timeout_s=spec.stream_timeout_s,
                media_format=spec.media_format(),
                custom_parameters=spec.custom_parameters,
            )
        ),
    )
    nonce = str(int.from_bytes(call.entropy(8), "big"))
    scheme = spec.status_scheme or wire.status_schemes[0]
    try:
        request = wire.status_request(event, scheme, spec.status_url, spec.status_url_method, spec.auth_token, nonce)
    except ConfigError as exc:
        # By GET a long status_url and long fields together may pass the bound of a URL.
        call.engine.callback_impossible(exc)
        return
    if request is not None:
        call.engine.deliver(request, after=queue, in_passing=kind in IN_PASSING)

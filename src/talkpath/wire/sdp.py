"""The session description of one audio leg: read, written, and answered.

Only what a telephone leg needs: one audio stream over RTP/AVP with PCMU, PCMA and telephone-event at 8 kHz, packet
time, direction, an IP address (version 4 or 6). Everything else in a description is skipped if harmless and named if
not. An answer follows the offer's numbering, takes the first of our codecs that the offer has, turns the direction
round and refuses media that are not ours with port 0.

Source: RFC 8866 (SDP), RFC 3264 (offer and answer), RFC 3551 (static payload types), RFC 4733 (telephone-event),
RFC 5761 (rtcp-mux).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace
from typing import Final, NoReturn

from talkpath.errors import ConfigError, RemoteWireError

SDP_MAX_BYTES: Final = 16_384
"""Longer descriptions are refused unread."""

DIRECTIONS: Final = ("sendrecv", "sendonly", "recvonly", "inactive")
"""As seen by whoever wrote the description."""

PTIMES_MS: Final = (10, 20, 30, 40, 60)
"""Packet times a leg can have."""

_LINES_MAX: Final = 512
_MEDIA_MAX: Final = 16
_FORMATS_MAX: Final = 64
_STATIC: Final = {0: ("PCMU", 8000), 8: ("PCMA", 8000)}
_CODECS: Final = {"PCMU": 0, "PCMA": 8}
_PROTOCOLS: Final = ("RTP/AVP", "RTP/AVPF")
_EVENT_PAYLOAD_TYPE: Final = 101
_TURNED: Final = {"sendrecv": "sendrecv", "sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive"}
_RTPMAP: Final = re.compile(r"([0-9]{1,3}) +([^/ ]{1,64})/([0-9]{1,7})(?:/([0-9]{1,3}))?", re.ASCII)
_FMTP: Final = re.compile(r"([0-9]{1,3}) +(.*)", re.ASCII)
_MEDIA: Final = re.compile(r"([!-~]+) ([0-9]{1,5})(?:/[0-9]{1,5})? ([!-~]+) ([ -~]+)", re.ASCII)
_MS: Final = re.compile(r"([0-9]{1,4})(?:\.[0-9]+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class SdpFormat:
    """One payload type of an audio stream."""

    payload_type: int
    name: str
    """Upper case: ``PCMU``, ``PCMA``, ``TELEPHONE-EVENT``, ...; empty for an unmapped dynamic type."""
    clock_rate_hz: int
    parameters: str = ""
    """Of ``a=fmtp``, as written."""


@dataclass(frozen=True, slots=True)
class AudioDescription:
    """One end's view of the audio stream."""

    address: str
    port: int
    formats: tuple[SdpFormat, ...]
    """In the order of preference."""
    protocol: str = "RTP/AVP"
    direction: str = "sendrecv"
    ptime_ms: int | None = None
    max_ptime_ms: int | None = None
    rtcp_mux: bool = False
    media: tuple[str, ...] = ("audio",)
    """The kind of each ``m=`` section, this stream's among them; an answer repeats them in this order."""
    media_index: int = 0
    media_lines: tuple[str, ...] = ()
    """Each ``m=`` line as written, for the answer that refuses those that are not ours."""


@dataclass(frozen=True, slots=True)
class LocalAudio:
    """What we offer, or can answer.

    Raises:
        ConfigError: says what would be right.
    """

    address: str
    """An IP address; what the other end sends its packets to."""
    port: int
    codecs: tuple[str, ...] = ("PCMU", "PCMA")
    """In the order of preference."""
    telephone_event: bool = True
    direction: str = "sendrecv"
    ptime_ms: int = 20
    rtcp_mux: bool = True
    session_id: int = 0
    """Of the ``o=`` line, with the version; injected, because nothing here is random."""
    session_version: int = 0

    def __post_init__(self) -> None:
        right = "right is one that the other end can reach, for example 192.0.2.1"
        try:
            address = ipaddress.ip_address(self.address)
        except ValueError:
            raise ConfigError(f"the address {self.address!r} is no IP address; {right}") from None
        if "%" in self.address or address.is_unspecified:
            raise ConfigError(f"the other end cannot send to {self.address}; {right}")
        if not 1 <= self.port <= 65535:
            raise ConfigError(f"the port is {self.port}; right is 1 to 65535")
        if not self.codecs or len(set(self.codecs)) != len(self.codecs) or not set(self.codecs) <= set(_CODECS):
            raise ConfigError(f"the codecs are {self.codecs}; right is some of {', '.join(_CODECS)}, each once")
        if self.direction not in DIRECTIONS:
            raise ConfigError(f"the direction is {self.direction!r}; right is one of {', '.join(DIRECTIONS)}")
        if self.ptime_ms not in PTIMES_MS:
            raise ConfigError(f"ptime_ms is {self.ptime_ms}; right is one of {', '.join(map(str, PTIMES_MS))}")
        if self.session_id < 0 or self.session_version < 0:
            raise ConfigError("session_id and session_version are not negative")


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What two ends agreed on, seen from ours."""

    codec: str
    payload_type: int
    """We send and receive it under this number."""
    telephone_event_payload_type: int | None
    ptime_ms: int
    """Of the packets we send."""
    direction: str
    """Ours: ``recvonly`` means we only receive."""
    remote_address: str
    remote_port: int
    rtcp_mux: bool
    answer: str = ""
    """The text to give back, where we answered."""


def parse_sdp(text: bytes | str) -> AudioDescription:
    """Read a session description and pick its first live audio stream.

    Raises:
        RemoteWireError: malformed (``bad_sdp``), too long, or without an audio stream we could speak (``no_audio``).
    """
    lines = _lines(text)
    session: list[tuple[str, str]] = []
    sections: list[tuple[str, list[tuple[str, str]]]] = []
    for kind, value in lines:
        if kind == "m":
            sections.append((value, []))
            if len(sections) > _MEDIA_MAX:
                _refuse("too_long", f"more than {_MEDIA_MAX} media sections")
        else:
            (sections[-1][1] if sections else session).append((kind, value))
    kinds: list[str] = []
    chosen: AudioDescription | None = None
    for index, (line, body) in enumerate(sections):
        match = _MEDIA.fullmatch(line)
        if match is None:
            _refuse("bad_sdp", "an m= line is malformed")
        kinds.append(match[1])
        port = int(match[2])
        if chosen is None and match[1] == "audio" and port != 0 and match[3] in _PROTOCOLS:
            chosen = replace(_audio(port, match[4].split(), session, body, index), protocol=match[3])
    if chosen is None:
        _refuse("no_audio", f"no live audio over {' or '.join(_PROTOCOLS)}")
    return replace(chosen, media=tuple(kinds), media_lines=tuple(line for line, _ in sections))


def build_offer(local: LocalAudio) -> str:
    """Write the offer of one audio stream: our codecs under their static numbers, telephone-event as 101."""
    formats = [SdpFormat(_CODECS[codec], codec, 8000) for codec in local.codecs]
    if local.telephone_event:
        formats.append(SdpFormat(_EVENT_PAYLOAD_TYPE, "TELEPHONE-EVENT", 8000, "0-15"))
    section = _section(local.port, "RTP/AVP", formats, local.direction, local.ptime_ms, local.rtcp_mux)
    return "\r\n".join([*_head(local), *section, ""])


def negotiate(local: LocalAudio, offer: bytes | str) -> Negotiated:
    """Answer an offer: the first of our codecs that it has, under its number.

    Raises:
        RemoteWireError: as `parse_sdp`, or ``no_codec``: nothing in common.
    """
    remote = parse_sdp(offer)
    codec = _pick(local, remote)
    event = _pick_event(local, remote)
    ptime_ms = _pick_ptime(local, remote)
    direction = _meet(local.direction, _TURNED[remote.direction])
    rtcp_mux = local.rtcp_mux and remote.rtcp_mux
    formats = [replace(codec, parameters="")] + ([replace(event, parameters="0-15")] if event else [])
    answer = _head(local)
    for index, line in enumerate(remote.media_lines):
        if index == remote.media_index:
            answer += _section(local.port, remote.protocol, formats, direction, ptime_ms, rtcp_mux)
        else:
            kind, _, rest = line.partition(" ")
            answer.append(f"m={kind} 0 {rest.partition(' ')[2]}")
    return Negotiated(
        codec=codec.name,
        payload_type=codec.payload_type,
        telephone_event_payload_type=event.payload_type if event else None,
        ptime_ms=ptime_ms,
        direction=direction,
        remote_address=remote.address,
        remote_port=remote.port,
        rtcp_mux=rtcp_mux,
        answer="\r\n".join([*answer, ""]),
    )


def accept(local: LocalAudio, answer: bytes | str) -> Negotiated:
    """Take the answer to our `build_offer`: its first codec of ours.

    Raises:
        RemoteWireError: as `parse_sdp`, or ``no_codec``: it answers with nothing that was offered.
    """
    remote = parse_sdp(answer)
    offered = {_CODECS[codec]: codec for codec in local.codecs}
    codec = next((f for f in remote.formats if offered.get(f.payload_type) == f.name and f.clock_rate_hz == 8000), None)
    if codec is None:
        _refuse("no_codec", "the answer has none of the codecs offered")
    event = _pick_event(local, remote)
    return Negotiated(
        codec=codec.name,
        payload_type=codec.payload_type,
        telephone_event_payload_type=event.payload_type if event else None,
        ptime_ms=_pick_ptime(local, remote),
        direction=_meet(local.direction, _TURNED[remote.direction]),
        remote_address=remote.address,
        remote_port=remote.port,
        rtcp_mux=local.rtcp_mux and remote.rtcp_mux,
    )


def _refuse(kind: str, problem: str, offset: int | None = None) -> NoReturn:
    raise RemoteWireError(problem, wire="sdp", offset=offset, kind=kind)


def _lines(text: bytes | str) -> list[tuple[str, str]]:
    if len(text) > SDP_MAX_BYTES:
        _refuse("too_long", f"{len(text)} bytes, at most {SDP_MAX_BYTES} are read")
    if not isinstance(text, str):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            _refuse("bad_utf8", "not UTF-8", error.start)
    raw = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    if len(raw) > _LINES_MAX:
        _refuse("too_long", f"{len(raw)} lines, at most {_LINES_MAX} are read")
    lines: list[tuple[str, str]] = []
    for number, line in enumerate(raw, 1):
        if len(line) < 2 or line[1] != "=" or not line[0].isascii() or not line[0].islower() or "\r" in line:
            _refuse("bad_sdp", f"line {number} is no letter, equals sign and value")
        lines.append((line[0], line[2:]))
    if lines[0] != ("v", "0"):
        _refuse("bad_sdp", "the first line is not v=0")
    return lines


def _audio(
    port: int, formats: list[str], session: list[tuple[str, str]], body: list[tuple[str, str]], index: int
) -> AudioDescription:
    if port > 65535:
        _refuse("bad_sdp", "the port of the audio stream is out of range")
    if len(formats) > _FORMATS_MAX:
        _refuse("too_long", f"{len(formats)} payload types, at most {_FORMATS_MAX} are read")
    types: list[int] = []
    for text in formats:
        if not (text.isascii() and text.isdigit()) or len(text) > 3 or int(text) > 127 or int(text) in types:
            _refuse("bad_sdp", "a payload type of the audio stream is no number from 0 to 127, or occurs twice")
        types.append(int(text))
    names: dict[int, tuple[str, int]] = {t: _STATIC[t] for t in types if t in _STATIC}
    parameters: dict[int, str] = {}
    direction = "sendrecv"
    ptime_ms: int | None = None
    max_ptime_ms: int | None = None
    rtcp_mux = False
    # What the session says holds for every stream that does not say otherwise; so it is read first.
    for kind, value in session + body:
        if kind != "a":
            continue
        name, _, rest = value.partition(":")
        match name:
            case "rtpmap":
                match = _RTPMAP.fullmatch(rest)
                if match is None:
                    _refuse("bad_sdp", "an a=rtpmap line is malformed")
                if match[4] in (None, "1"):
                    names[int(match[1])] = (match[2].upper(), int(match[3]))
            case "fmtp":
                match = _FMTP.fullmatch(rest)
                if match is not None:
                    parameters[int(match[1])] = match[2]
            case "ptime":
                ptime_ms = _milliseconds(rest)
            case "maxptime":
                max_ptime_ms = _milliseconds(rest)
            case "rtcp-mux":
                rtcp_mux = True
            case "sendrecv" | "sendonly" | "recvonly" | "inactive":
                direction = name
    address = _address(session, body)
    if ipaddress.ip_address(address).is_unspecified:
        # The old way to say hold: an address that nothing can be sent to.
        direction = {"sendrecv": "sendonly", "recvonly": "inactive"}.get(direction, direction)
    return AudioDescription(
        address=address,
        port=port,
        formats=tuple(SdpFormat(t, *names.get(t, ("", 0)), parameters.get(t, "")) for t in types),
        direction=direction,
        ptime_ms=ptime_ms,
        max_ptime_ms=max_ptime_ms,
        rtcp_mux=rtcp_mux,
        media_index=index,
    )


def _milliseconds(text: str) -> int:
    match = _MS.fullmatch(text.strip())
    if match is None:
        _refuse("bad_sdp", "a packet time is no number of milliseconds")
    return int(match[1])


def _address(session: list[tuple[str, str]], body: list[tuple[str, str]]) -> str:
    value = next((v for k, v in body + session if k == "c"), None)
    if value is None:
        _refuse("bad_sdp", "no c= line says where the audio stream is")
    parts = value.split(" ")
    if len(parts) != 3 or parts[0] != "IN" or parts[1] not in ("IP4", "IP6"):
        _refuse("bad_sdp", "a c= line is malformed")
    try:
        address = ipaddress.ip_address(parts[2])
    except ValueError:
        _refuse("bad_sdp", "the address in c= is no plain IP address (host names and multicast are not taken)")
    if "%" in parts[2] or address.is_multicast or (address.version == 4) != (parts[1] == "IP4"):
        _refuse("bad_sdp", "the address in c= is multicast, has a zone, or is not of the version said")
    return str(address)


def _pick(local: LocalAudio, remote: AudioDescription) -> SdpFormat:
    for codec in local.codecs:
        for offered in remote.formats:
            if offered.name == codec and offered.clock_rate_hz == 8000:
                return offered
    _refuse("no_codec", f"the offer has none of {', '.join(local.codecs)} at 8000 Hz")


def _pick_event(local: LocalAudio, remote: AudioDescription) -> SdpFormat | None:
    if not local.telephone_event:
        return None
    return next((f for f in remote.formats if f.name == "TELEPHONE-EVENT" and f.clock_rate_hz == 8000), None)


def _pick_ptime(local: LocalAudio, remote: AudioDescription) -> int:
    wanted = remote.ptime_ms if remote.ptime_ms in PTIMES_MS else local.ptime_ms
    if remote.max_ptime_ms is None:
        return wanted
    return max((p for p in PTIMES_MS if p <= min(wanted, remote.max_ptime_ms)), default=PTIMES_MS[0])


def _meet(ours: str, theirs: str) -> str:
    """The direction in which both wishes come true; each is ours to see."""
    send = ours in ("sendrecv", "sendonly") and theirs in ("sendrecv", "sendonly")
    receive = ours in ("sendrecv", "recvonly") and theirs in ("sendrecv", "recvonly")
    return ("sendrecv" if receive else "sendonly") if send else ("recvonly" if receive else "inactive")


def _head(local: LocalAudio) -> list[str]:
    where = f"IN IP{ipaddress.ip_address(local.address).version} {local.address}"
    return [
        "v=0",
        f"o=- {local.session_id} {local.session_version} {where}",
        "s=-",
        f"c={where}",
        "t=0 0",
    ]


def _section(
    port: int, protocol: str, formats: list[SdpFormat], direction: str, ptime_ms: int, rtcp_mux: bool
) -> list[str]:
    lines = [f"m=audio {port} {protocol} {' '.join(str(f.payload_type) for f in formats)}"]
    for f in formats:
        name = f.name if f.name in _CODECS else f.name.lower()
        lines.append(f"a=rtpmap:{f.payload_type} {name}/{f.clock_rate_hz}")
        if f.parameters:
            lines.append(f"a=fmtp:{f.payload_type} {f.parameters}")
    lines.append(f"a=ptime:{ptime_ms}")
    lines.append(f"a={direction}")
    if rtcp_mux:
        lines.append("a=rtcp-mux")
    return lines

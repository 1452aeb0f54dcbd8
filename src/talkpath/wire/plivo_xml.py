"""The documents that ask Plivo for a stream: the ``<Stream>`` element and the REST create body.

Both name the same attributes, in camelCase and in snake_case; either becomes one `PlivoStreamRequest` with the
documented defaults. The XML reader takes no document type, hence no entities but XML's own five, keeps nothing but the
elements it looks for, and is bounded, so that an answer from anybody's web server can be given to it.

Source: Plivo's XML ``<Stream>`` and REST audio-stream pages and its Python SDK 4.63.0, read 2026-11. Where the pages
differ (default codec; separator of ``extraHeaders``), the XML and REST pages' reading is the default and both are read.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

from talkpath.errors import ConfigError, RemoteWireError
from talkpath.events import MediaFormat
from talkpath.wire.callback import check_callback_url
from talkpath.wire.json_message import JsonMessages, is_text, type_name
from talkpath.wire.plivo_parameters import (
    EXTRA_HEADERS_MAX_BYTES,
    WIRE,
    check_format,
    collect_parameters,
    content_type,
    read_content_type,
    read_extra_headers,
    write_extra_headers,
)

DOCUMENT_MAX_BYTES: Final = 102_400
"""Longer documents are refused unread."""

STREAM_URL_MAX: Final = 2048

_TRACKS: Final = ("inbound", "outbound", "both")
_METHODS: Final = ("GET", "POST")
_DEPTH_MAX: Final = 8

# (attribute of PlivoStreamRequest, in XML, in REST)
_NAMES: Final = (
    ("bidirectional", "bidirectional", "bidirectional"),
    ("audio_track", "audioTrack", "audio_track"),
    ("stream_timeout_s", "streamTimeout", "stream_timeout"),
    ("status_callback_url", "statusCallbackUrl", "status_callback_url"),
    ("status_callback_method", "statusCallbackMethod", "status_callback_method"),
    ("media_format", "contentType", "content_type"),
    ("extra_headers", "extraHeaders", "extra_headers"),
    ("keep_call_alive", "keepCallAlive", ""),
    ("noise_cancellation", "noiseCancellation", "noise_cancellation"),
    ("noise_cancellation_level", "noiseCancellationLevel", "noise_cancellation_level"),
)
# Known, without a meaning here: the REST create's undocumented switch.
_IGNORED: Final = ("cx_bot",)


@dataclass(frozen=True, slots=True)
class PlivoStreamRequest:
    """One stream, as a document asks for it.

    Raises:
        ConfigError: names the attribute and what would be right.
    """

    url: str
    """``wss://`` or ``ws://``, at most 2,048 characters; its query is kept."""
    bidirectional: bool = False
    audio_track: str = "inbound"
    """``inbound``, ``outbound`` or ``both``; a bidirectional stream has ``inbound``."""
    stream_timeout_s: int = 86_400
    """Ends the stream, not the call: 24 h unless told."""
    status_callback_url: str = ""
    status_callback_method: str = "POST"
    media_format: MediaFormat = MediaFormat("L16", 8000)  # noqa: RUF009 - frozen
    """Both ways. The default is the XML and REST pages'; the guide says mu-law."""
    extra_headers: Mapping[str, str] = field(default_factory=dict)
    """At most 512 bytes as ``k=v,k=v``."""
    keep_call_alive: bool = False
    """Whether the next XML element waits for the stream's end."""
    noise_cancellation: bool = False
    noise_cancellation_level: int = 85
    """60 to 100."""

    def __post_init__(self) -> None:
        _check_stream_url(self.url)
        if self.audio_track not in _TRACKS:
            raise ConfigError(f"audioTrack is not one of {', '.join(_TRACKS)}")
        if self.bidirectional and self.audio_track != "inbound":
            raise ConfigError(f"audioTrack is {self.audio_track} on a bidirectional stream; right is inbound")
        if self.stream_timeout_s < 1:
            raise ConfigError("streamTimeout is not positive; right is a whole number of seconds, for example 86400")
        if self.status_callback_url:
            try:
                check_callback_url(self.status_callback_url)
            except ConfigError as error:
                raise ConfigError(f"statusCallbackUrl: {error}") from None
        if self.status_callback_method not in _METHODS:
            raise ConfigError("statusCallbackMethod is neither GET nor POST")
        try:
            check_format(self.media_format)
        except ConfigError as error:
            raise ConfigError(f"contentType: {error}") from None
        try:
            write_extra_headers(self.extra_headers)
        except ConfigError as error:
            raise ConfigError(f"extraHeaders: {error}") from None
        if not 60 <= self.noise_cancellation_level <= 100:
            raise ConfigError(
                f"noiseCancellationLevel is {self.noise_cancellation_level}; right is a whole number from 60 to 100"
            )

    @property
    def tracks(self) -> tuple[str, ...]:
        """The tracks the stream carries: ``inbound``, ``outbound``."""
        return ("inbound", "outbound") if self.audio_track == "both" else (self.audio_track,)


def read_response(document: bytes | str) -> PlivoStreamRequest:
    """Read ``<Response><Stream ...>url</Stream></Response>``.

    Raises:
        RemoteWireError: no such document; names the attribute and what would be right.
    """
    if len(document) > DOCUMENT_MAX_BYTES:
        _refuse("too_long", f"the document has {len(document)} bytes, at most {DOCUMENT_MAX_BYTES} are read")
    elements = _Elements()
    parser = ElementTree.XMLParser(target=elements)
    try:
        parser.feed(document)
        parser.close()
    except ElementTree.ParseError as error:
        raise RemoteWireError(f"not XML: {error}", wire=WIRE, event="Response", kind="bad_xml") from None
    except (ValueError, LookupError) as error:
        _refuse("bad_xml", f"not XML that can be read ({type(error).__name__})")
    if elements.root != "Response":
        _refuse("bad_value", "the outermost element is not <Response>")
    if len(elements.children) != 1:
        _refuse("bad_value", f"<Response> has {len(elements.children)} elements here; right is one <Stream>")
    name, attributes, text = elements.children[0]
    if name != "Stream":
        _refuse("bad_value", "the element in <Response> is not <Stream>")
    return read_stream_element(attributes, "".join(text))


def read_stream_element(attributes: Mapping[str, str], text: str) -> PlivoStreamRequest:
    """Read a ``<Stream>`` element that somebody has parsed: its attributes, and its text, the URL.

    Raises:
        RemoteWireError: names the attribute and what would be right.
    """
    return _request(text.strip(), attributes, {xml: name for name, xml, _ in _NAMES})


def read_create_body(body: bytes | str) -> PlivoStreamRequest:
    """Read the JSON body of a REST request that creates a stream on a live call.

    Booleans and numbers may be written as strings; ``extra_headers`` may be an object.

    Raises:
        RemoteWireError: names the key and what would be right.
    """
    if len(body) > DOCUMENT_MAX_BYTES:
        _refuse("too_long", f"the body has {len(body)} bytes, at most {DOCUMENT_MAX_BYTES} are read")
    if not isinstance(body, str):
        try:
            body = body.decode()
        except UnicodeDecodeError as error:
            raise RemoteWireError("not UTF-8", wire=WIRE, offset=error.start, kind="bad_utf8") from None
    values = JsonMessages(WIRE).load(body, DOCUMENT_MAX_BYTES)
    url = values.pop("service_url", None)
    if url is None:
        _refuse("missing_field", "no service_url; right is the wss:// URL to stream to")
    if not isinstance(url, str):
        _refuse("bad_type", f"service_url is {type_name(url)}; right is text")
    return _request(url, values, {rest: name for name, _, rest in _NAMES if rest})


def write_response(request: PlivoStreamRequest, *, separator: str = ",") -> str:
    """Write a request as ``<Response><Stream ...>``; attributes that have their default are left out.

    Args:
        request: What to write.
        separator: Between custom parameters: ``,`` (the XML page) or ``;`` (the guide).

    Raises:
        ConfigError: a custom parameter that the attribute's form cannot hold, or another separator.
    """
    defaults = PlivoStreamRequest(request.url)
    attributes: list[str] = []
    for name, xml, _ in _NAMES:
        value = getattr(request, name)
        if value == getattr(defaults, name):
            continue
        if isinstance(value, bool):
            text = "true" if value else "false"
        elif isinstance(value, MediaFormat):
            text = content_type(value)
        elif isinstance(value, Mapping):
            text = _delimited(value, separator)
        else:
            text = str(value)
        attributes.append(f" {xml}={quoteattr(text)}")
    return f"<Response><Stream{''.join(attributes)}>{escape(request.url)}</Stream></Response>"


class _Elements:
    """What the parser tells, kept down to the children of the outermost element."""

    def __init__(self) -> None:
        self.root = ""
        self.children: list[tuple[str, dict[str, str], list[str]]] = []
        self._depth = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            _refuse("bad_xml", f"elements are nested deeper than {_DEPTH_MAX}")
        if self._depth == 1:
            self.root = name
        elif self._depth == 2:
            self.children.append((name, dict(attributes), []))
        elif self.children[-1][0] == "Stream":
            _refuse("bad_value", "<Stream> holds an element; right is the URL alone")

    def data(self, text: str) -> None:
        if self._depth == 2:
            self.children[-1][2].append(text)

    def end(self, name: str) -> None:
        self._depth -= 1

    def doctype(self, name: str, public_id: str | None, system_id: str | None) -> NoReturn:
        # Without a document type there are no entities but XML's own five, so nothing can be fetched or multiplied.
        _refuse("bad_xml", "the document has a document type; right is none")

    def close(self) -> None:
        return


def _request(url: str, values: Mapping[str, Any], names: Mapping[str, str]) -> PlivoStreamRequest:
    keywords: dict[str, Any] = {}
    for key, value in values.items():
        name = names.get(key)
        if name is None:
            if key in _IGNORED:
                continue
            near = difflib.get_close_matches(key[:64], names, 1)
            _refuse("unknown_field", f"there is no {key[:64]!a}" + (f"; right may be {near[0]}" if near else ""))
        if value is None:
            continue
        keywords[name] = _READERS[name](key, value)
    try:
        return PlivoStreamRequest(url, **keywords)
    except ConfigError as error:
        raise RemoteWireError(str(error), wire=WIRE, event="Stream", kind="bad_value") from None


def _read_text(key: str, value: object) -> str:
    if not isinstance(value, str):
        _refuse("bad_type", f"{key} is {type_name(value)}; right is text")
    if not is_text(value):
        _refuse("bad_value", f"{key} is not well-formed Unicode")
    return value.strip()


def _read_bool(key: str, value: object) -> bool:
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if not isinstance(value, bool):
        _refuse("bad_value", f"{key} is not a boolean; right is true or false")
    return value


def _read_int(key: str, value: object) -> int:
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) <= 18:
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 10**18:
        _refuse("bad_value", f"{key} is not a whole number")
    return value


def _read_format(key: str, value: object) -> MediaFormat:
    found = read_content_type(_read_text(key, value))
    if found is None:
        _refuse(
            "unknown_format",
            f"{key} is unknown; right is audio/x-mulaw;rate=8000, audio/x-l16;rate=8000 or audio/x-l16;rate=16000",
        )
    encoding, rate_hz = found
    return MediaFormat(encoding, 8000 if rate_hz is None else rate_hz)


def _read_headers(key: str, value: object) -> dict[str, str]:
    if isinstance(value, dict):
        return collect_parameters(value.items())
    text = _read_text(key, value)
    if len(text.encode()) > EXTRA_HEADERS_MAX_BYTES:
        _refuse("too_long", f"{key} has {len(text.encode())} bytes; right is at most {EXTRA_HEADERS_MAX_BYTES}")
    return read_extra_headers(text)


_READERS: Final[Mapping[str, Callable[[str, object], Any]]] = {
    "bidirectional": _read_bool,
    "audio_track": _read_text,
    "stream_timeout_s": _read_int,
    "status_callback_url": _read_text,
    "status_callback_method": lambda key, value: _read_text(key, value).upper(),
    "media_format": _read_format,
    "extra_headers": _read_headers,
    "keep_call_alive": _read_bool,
    "noise_cancellation": _read_bool,
    "noise_cancellation_level": _read_int,
}


def _check_stream_url(url: str) -> None:
    right = "right is for example wss://app.example/audio"
    if len(url) > STREAM_URL_MAX:
        raise ConfigError(f"the stream's URL has {len(url)} characters; right is at most {STREAM_URL_MAX}")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(f"the stream's URL is not printable ASCII; percent-encode the rest ({right})")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError(f"the stream's URL has a bad host or port; {right}") from None
    if parts.scheme not in ("ws", "wss") or not parts.hostname or port == 0:
        raise ConfigError(f"the stream's URL is not ws or wss, or has no host; {right}")


def _delimited(parameters: Mapping[str, str], separator: str) -> str:
    if separator not in (",", ";"):
        raise ConfigError("the separator of extraHeaders is , or ;")
    for name, value in parameters.items():
        if set(name) & set(",;={") or set(value) & set(",;"):
            raise ConfigError(f"extraHeaders: {name!r} holds one of , ; = which separate; right is letters and digits")
    return separator.join(f"{name}={value}" for name, value in parameters.items())


def _refuse(kind: str, problem: str) -> NoReturn:
    raise RemoteWireError(problem, wire=WIRE, event="Stream", kind=kind)

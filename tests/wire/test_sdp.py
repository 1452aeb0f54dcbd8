"""SDP of one audio leg: offers answered, answers accepted, anything else refused."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkpath.errors import ConfigError, RemoteWireError
from talkpath.wire.sdp import DIRECTIONS, LocalAudio, SdpFormat, accept, build_offer, negotiate, parse_sdp

PROPERTY = settings(max_examples=300, deadline=None, derandomize=True)
US = LocalAudio("192.0.2.1", 40000, session_id=7, session_version=1)


def sdp(*lines: str, head: tuple[str, ...] = ("c=IN IP4 198.51.100.9",)) -> str:
    return "\r\n".join(["v=0", "o=alice 1 1 IN IP4 198.51.100.9", "s=-", *head, "t=0 0", *lines, ""])


# A SIP telephone's usual offer, in the shape of RFC 4317 section 2.
PHONE = sdp(
    "m=audio 49170 RTP/AVP 18 0 8 101",
    "a=rtpmap:18 G729/8000",
    "a=rtpmap:0 PCMU/8000",
    "a=rtpmap:8 PCMA/8000",
    "a=rtpmap:101 telephone-event/8000",
    "a=fmtp:101 0-15",
    "a=ptime:30",
    "a=maxptime:60",
    "a=sendrecv",
    "a=rtcp-mux",
    "a=ssrc:1 cname:x",
)


def test_an_offer_is_written_in_full() -> None:
    assert build_offer(US) == "\r\n".join(
        [
            "v=0",
            "o=- 7 1 IN IP4 192.0.2.1",
            "s=-",
            "c=IN IP4 192.0.2.1",
            "t=0 0",
            "m=audio 40000 RTP/AVP 0 8 101",
            "a=rtpmap:0 PCMU/8000",
            "a=rtpmap:8 PCMA/8000",
            "a=rtpmap:101 telephone-event/8000",
            "a=fmtp:101 0-15",
            "a=ptime:20",
            "a=sendrecv",
            "a=rtcp-mux",
            "",
        ]
    )


def test_a_telephones_offer_is_read() -> None:
    audio = parse_sdp(PHONE)
    assert (audio.address, audio.port, audio.direction, audio.rtcp_mux) == ("198.51.100.9", 49170, "sendrecv", True)
    assert (audio.ptime_ms, audio.max_ptime_ms) == (30, 60)
    assert audio.formats == (
        SdpFormat(18, "G729", 8000),
        SdpFormat(0, "PCMU", 8000),
        SdpFormat(8, "PCMA", 8000),
        SdpFormat(101, "TELEPHONE-EVENT", 8000, "0-15"),
    )
    assert parse_sdp(PHONE.replace("\r\n", "\n").encode()) == audio


def test_a_telephones_offer_is_answered() -> None:
    agreed = negotiate(US, PHONE)
    assert (agreed.codec, agreed.payload_type, agreed.telephone_event_payload_type) == ("PCMU", 0, 101)
    assert (agreed.remote_address, agreed.remote_port, agreed.ptime_ms) == ("198.51.100.9", 49170, 30)
    assert (agreed.direction, agreed.rtcp_mux) == ("sendrecv", True)
    assert agreed.answer.split("\r\n")[5:] == [
        "m=audio 40000 RTP/AVP 0 101",
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-15",
        "a=ptime:30",
        "a=sendrecv",
        "a=rtcp-mux",
        "",
    ]


def test_our_preference_decides_and_the_offers_numbers_are_used() -> None:
    offer = sdp(
        "m=audio 5000 RTP/AVPF 96 97 98",
        "a=rtpmap:96 pcmu/8000",
        "a=rtpmap:97 PCMA/8000/1",
        "a=rtpmap:98 telephone-event/8000",
    )
    agreed = negotiate(replace(US, codecs=("PCMA", "PCMU")), offer)
    assert (agreed.codec, agreed.payload_type, agreed.telephone_event_payload_type) == ("PCMA", 97, 98)
    assert "m=audio 40000 RTP/AVPF 97 98\r\n" in agreed.answer
    assert "rtcp-mux" not in agreed.answer


def test_static_types_need_no_map_and_events_of_another_clock_are_left_out() -> None:
    agreed = negotiate(US, sdp("m=audio 5000 RTP/AVP 8 101", "a=rtpmap:101 telephone-event/48000"))
    assert (agreed.codec, agreed.telephone_event_payload_type) == ("PCMA", None)
    without = negotiate(replace(US, telephone_event=False), PHONE)
    assert without.telephone_event_payload_type is None
    assert "telephone-event" not in without.answer


@pytest.mark.parametrize(
    ("ptime", "ours", "agreed"),
    [
        ("", 20, 20),
        ("a=ptime:40", 20, 40),
        ("a=ptime:25", 20, 20),
        ("a=maxptime:10", 20, 10),
        ("a=maxptime:5", 20, 10),
        ("a=maxptime:35", 60, 30),
        ("a=ptime:20.5", 60, 20),
    ],
)
def test_the_packet_time(ptime: str, ours: int, agreed: int) -> None:
    offer = sdp("m=audio 5000 RTP/AVP 0", *([ptime] if ptime else []))
    assert negotiate(replace(US, ptime_ms=ours), offer).ptime_ms == agreed


@pytest.mark.parametrize(
    ("theirs", "ours", "agreed"),
    [
        ("sendrecv", "sendrecv", "sendrecv"),
        ("sendonly", "sendrecv", "recvonly"),
        ("recvonly", "sendrecv", "sendonly"),
        ("inactive", "sendrecv", "inactive"),
        ("sendrecv", "recvonly", "recvonly"),
        ("sendrecv", "sendonly", "sendonly"),
        ("sendonly", "sendonly", "inactive"),
        ("recvonly", "recvonly", "inactive"),
        ("sendrecv", "inactive", "inactive"),
    ],
)
def test_the_direction_is_turned_round(theirs: str, ours: str, agreed: str) -> None:
    for offer in (sdp("m=audio 5000 RTP/AVP 0", f"a={theirs}"), sdp(f"a={theirs}", "m=audio 5000 RTP/AVP 0")):
        result = negotiate(replace(US, direction=ours), offer)
        assert result.direction == agreed
        assert f"a={agreed}\r\n" in result.answer


def test_the_old_way_to_hold_is_understood() -> None:
    offer = sdp("m=audio 5000 RTP/AVP 0", head=("c=IN IP4 0.0.0.0",))
    assert negotiate(US, offer).direction == "recvonly"


def test_other_media_are_refused_in_their_order() -> None:
    offer = sdp(
        "m=video 6000 RTP/AVP 96",
        "c=IN IP4 203.0.113.1",
        "a=rtpmap:96 H264/90000",
        "m=audio 0 RTP/AVP 0",
        "m=audio 7000 RTP/SAVP 0",
        "m=audio 5000 RTP/AVP 0",
        "c=IN IP4 203.0.113.2",
        "m=audio 5002 RTP/AVP 8",
        "m=application 9/2 UDP/BFCP *",
    )
    agreed = negotiate(US, offer)
    assert (agreed.remote_address, agreed.remote_port) == ("203.0.113.2", 5000)
    assert [line for line in agreed.answer.split("\r\n") if line.startswith("m=")] == [
        "m=video 0 RTP/AVP 96",
        "m=audio 0 RTP/AVP 0",
        "m=audio 0 RTP/SAVP 0",
        "m=audio 40000 RTP/AVP 0",
        "m=audio 0 RTP/AVP 8",
        "m=application 0 UDP/BFCP *",
    ]


def test_version_six_of_ip() -> None:
    us = replace(US, address="2001:db8::1")
    offer = sdp("m=audio 5000 RTP/AVP 0", head=("c=IN IP6 2001:DB8::2",))
    agreed = negotiate(us, offer)
    assert agreed.remote_address == "2001:db8::2"
    assert "c=IN IP6 2001:db8::1\r\n" in agreed.answer


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "bad_sdp"),
        ("hello", "bad_sdp"),
        ("v=1\r\n", "bad_sdp"),
        ("v=0\r\nnonsense\r\n", "bad_sdp"),
        ("v=0\r\n", "no_audio"),
        (b"v=0\r\ns=\xff\r\n", "bad_utf8"),
        (sdp("m=video 6000 RTP/AVP 96"), "no_audio"),
        (sdp("m=audio 0 RTP/AVP 0"), "no_audio"),
        (sdp("m=audio 5000 RTP/SAVPF 0"), "no_audio"),
        (sdp("m=audio"), "bad_sdp"),
        (sdp("m=audio 70000 RTP/AVP 0"), "bad_sdp"),
        (sdp("m=audio 5000 RTP/AVP 128"), "bad_sdp"),
        (sdp("m=audio 5000 RTP/AVP x"), "bad_sdp"),
        (sdp("m=audio 5000 RTP/AVP 0 0"), "bad_sdp"),
        (sdp("m=audio 5000 RTP/AVP " + " ".join(map(str, range(65)))), "too_long"),
        (sdp("m=audio 5000 RTP/AVP 96", "a=rtpmap:96 PCMU"), "bad_sdp"),
        (sdp("m=audio 5000 RTP/AVP 0", "a=ptime:soon"), "bad_sdp"),
        (sdp("m=audio 5000 RTP/AVP 0", head=()), "bad_sdp"),
        (sdp("m=audio 5000 RTP/AVP 0", head=("c=IN IP4 host.example",)), "bad_sdp"),
        (sdp("m=audio 5000 RTP/AVP 0", head=("c=IN IP4 224.2.1.1/127",)), "bad_sdp"),
        (sdp("m=audio 5000 RTP/AVP 0", head=("c=IN IP4 224.2.1.1",)), "bad_sdp"),
        (sdp("m=audio 5000 RTP/AVP 0", head=("c=IN IP6 192.0.2.1",)), "bad_sdp"),
        (sdp("m=audio 5000 RTP/AVP 0", head=("c=IN IP6 fe80::1%eth0",)), "bad_sdp"),
        (sdp("m=audio 5000 RTP/AVP 0", head=("c=ATM NSAP x",)), "bad_sdp"),
        (sdp(*["m=audio 5000 RTP/AVP 0"] * 17), "too_long"),
        (sdp(*["a=x"] * 600), "too_long"),
        (sdp("a=" + "x" * 20_000), "too_long"),
        (sdp("m=audio 5000 RTP/AVP 18 3", "a=rtpmap:18 G729/8000"), "no_codec"),
        (sdp("m=audio 5000 RTP/AVP 96", "a=rtpmap:96 PCMU/16000"), "no_codec"),
        (sdp("m=audio 5000 RTP/AVP 96", "a=rtpmap:96 PCMU/8000/2"), "no_codec"),
        (sdp("m=audio 5000 RTP/AVP 96"), "no_codec"),
    ],
)
def test_what_cannot_be_answered_is_refused(text: str | bytes, kind: str) -> None:
    with pytest.raises(RemoteWireError) as refusal:
        negotiate(US, text)
    assert refusal.value.kind == kind


def test_an_answer_that_was_not_offered_is_refused() -> None:
    for answer in (sdp("m=audio 5000 RTP/AVP 8"), sdp("m=audio 5000 RTP/AVP 96", "a=rtpmap:96 PCMU/8000")):
        with pytest.raises(RemoteWireError, match="none of the codecs offered"):
            accept(replace(US, codecs=("PCMU",)), answer)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"address": "host.example"}, "no IP address"),
        ({"address": "0.0.0.0"}, "cannot send to"),
        ({"address": "fe80::1%eth0"}, "cannot send to"),
        ({"port": 0}, "1 to 65535"),
        ({"codecs": ()}, "PCMU, PCMA"),
        ({"codecs": ("OPUS",)}, "PCMU, PCMA"),
        ({"codecs": ("PCMU", "PCMU")}, "each once"),
        ({"direction": "both"}, "sendrecv"),
        ({"ptime_ms": 25}, "10, 20, 30, 40, 60"),
        ({"session_id": -1}, "not negative"),
    ],
)
def test_what_we_cannot_offer_is_ours_to_mend(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        replace(US, **change)


locals_ = st.builds(
    LocalAudio,
    address=st.ip_addresses().filter(lambda a: not a.is_unspecified and not a.is_multicast).map(str),
    port=st.integers(1, 65535),
    codecs=st.sampled_from([("PCMU",), ("PCMA",), ("PCMU", "PCMA"), ("PCMA", "PCMU")]),
    telephone_event=st.booleans(),
    direction=st.sampled_from(DIRECTIONS),
    ptime_ms=st.sampled_from([10, 20, 30, 40, 60]),
    rtcp_mux=st.booleans(),
)


@PROPERTY
@given(locals_, locals_)
def test_both_ends_come_to_the_same_agreement(caller: LocalAudio, callee: LocalAudio) -> None:
    offer = build_offer(caller)
    if not set(caller.codecs) & set(callee.codecs):
        with pytest.raises(RemoteWireError):
            negotiate(callee, offer)
        return
    at_callee = negotiate(callee, offer)
    at_caller = accept(caller, at_callee.answer)
    assert at_callee.codec == at_caller.codec == next(c for c in callee.codecs if c in caller.codecs)
    assert at_callee.payload_type == at_caller.payload_type
    assert at_callee.telephone_event_payload_type == at_caller.telephone_event_payload_type
    assert at_callee.ptime_ms == at_caller.ptime_ms
    assert at_callee.rtcp_mux == at_caller.rtcp_mux == (caller.rtcp_mux and callee.rtcp_mux)
    turned = {"sendonly": "recvonly", "recvonly": "sendonly"}
    assert at_caller.direction == turned.get(at_callee.direction, at_callee.direction)
    assert (at_callee.remote_address, at_callee.remote_port) == (caller.address, caller.port)
    assert (at_caller.remote_address, at_caller.remote_port) == (callee.address, callee.port)


sdp_lines = st.lists(
    st.sampled_from(PHONE.split("\r\n"))
    | st.builds("{}={}".format, st.sampled_from("vosctmab"), st.text(max_size=20))
    | st.builds("a={}:{}".format, st.sampled_from(["rtpmap", "fmtp", "ptime", "maxptime"]), st.text(max_size=12)),
    max_size=12,
).map(lambda lines: "v=0\r\nc=IN IP4 192.0.2.7\r\n" + "\r\n".join(lines))


@PROPERTY
@given(sdp_lines | st.text(max_size=60) | st.binary(max_size=60))
def test_any_description_is_answered_or_refused(text: str | bytes) -> None:
    with contextlib.suppress(RemoteWireError):
        answer = negotiate(US, text).answer
        assert parse_sdp(answer).address == US.address

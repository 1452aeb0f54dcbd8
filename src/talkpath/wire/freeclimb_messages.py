"""FreeClimb's protobuf messages, as classes of the protobuf library.

``freeclimb.proto`` beside this file is what one reads, and what other languages are generated from. The classes are
made from the same table here, when this module is imported, in a pool of their own: nothing generated has to fit the
version of protobuf that a program has, and a program may hold the platform's own generated messages, which have the
same names. A test holds the table and the file equal.

Source: FreeClimb's audio streaming specification of 2024-05 (field names and numbers), read 2026-11.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

FILE: Final = "talkpath/wire/freeclimb.proto"
METHOD: Final = "/freeclimb.GRPCStreamService/SendIVRData"

_TIMESTAMP = ".google.protobuf.Timestamp"
_BUFFER_TYPE: Mapping[str, int] = {"DTMF": 0, "Audio": 1}
_REASONS: Mapping[str, int] = {
    "CALLER_DISCONNECT": 0,
    "APPLICATION_DISCONNECT": 1,
    "PLATFORM_DISCONNECT": 2,
    "PLATFORM_ERROR": 3,
}

Field = tuple[int, str]
"""(number, type): ``string``, ``bytes``, ``bool``, ``uint32``, ``*string`` (repeated), a message's full name with
its leading dot, or the name of the enum in the same message."""
_MOMENT: Mapping[str, Field] = {"id": (1, "string"), "timestamp": (2, _TIMESTAMP)}

_Messages = Mapping[str, tuple[Mapping[str, Field], Mapping[str, Mapping[str, int]], tuple[int, ...]]]
"""By name: fields, enums, reserved numbers."""

_PLATFORM: _Messages = {
    "NotifyCallStartedMessage": (
        {
            "call_id": (1, "string"),
            "to": (2, "string"),
            "from": (3, "string"),
            "is_inbound": (4, "bool"),
            "metadata": (5, "*string"),
            "content_type": (6, "string"),
        },
        {},
        (),
    ),
    "NotifyAudioMessage": (
        {
            "audio_data": (1, "bytes"),
            "start_tstamp": (3, _TIMESTAMP),
            "end_tstamp": (4, _TIMESTAMP),
            "sequence_num": (6, "uint32"),
        },
        {},
        (2, 5),
    ),
    "NotifyDTMFReceivedStartedMessage": ({"digit": (1, "string"), "start_tstamp": (2, _TIMESTAMP)}, {}, ()),
    "NotifyDTMFReceivedEndedMessage": ({"digit": (1, "string"), "end_tstamp": (3, _TIMESTAMP)}, {}, ()),
    "NotifyAudioPlaybackStartedMessage": (_MOMENT, {}, ()),
    "NotifyAudioPlaybackCompletedMessage": (_MOMENT, {}, ()),
    "NotifyAudioBufferClearedMessage": (_MOMENT, {}, ()),
    "NotifyDTMFPlayStartedMessage": (_MOMENT, {}, ()),
    "NotifyDTMFPlayCompletedMessage": (_MOMENT, {}, ()),
    "NotifyCallEndedMessage": (
        {"call_id": (1, "string"), "reason_code": (2, "ReasonCode"), "reason": (3, "string")},
        {"ReasonCode": _REASONS},
        (),
    ),
    "NotifyErrorMessage": ({"error_message": (1, "string"), "error_id": (2, "string")}, {}, ()),
    "NotifyBufferDepthMessage": (
        {"buffer_type": (1, "BufferType"), "depth": (2, "uint32"), "buffer_size": (3, "uint32")},
        {"BufferType": _BUFFER_TYPE},
        (),
    ),
}
_APP: _Messages = {
    "PlayAudioMessage": (
        {
            "id": (1, "string"),
            "audio_data": (2, "bytes"),
            "content_type": (3, "string"),
            "sequence_num": (5, "uint32"),
            "last_message": (6, "bool"),
        },
        {},
        (4,),
    ),
    "ClearAudioBufferMessage": ({"id": (1, "string")}, {}, ()),
    "PressDTMFMessage": (
        {
            "id": (1, "string"),
            "dtmf_digits": (2, "string"),
            "press_duration_ms": (3, "uint32"),
            "break_duration_ms": (4, "uint32"),
            "sequence_num": (5, "uint32"),
        },
        {},
        (),
    ),
    "TerminateCallMessage": ({}, {}, ()),
    "EndGrpcStreamMessage": ({"action_url": (1, "string")}, {}, ()),
    "QueryBufferDepthMessage": ({"buffer_type": (1, "BufferType")}, {"BufferType": _BUFFER_TYPE}, ()),
}
_PLATFORM_PAYLOAD = (
    ("notify_call_started", "NotifyCallStartedMessage"),
    ("notify_audio_data", "NotifyAudioMessage"),
    ("notify_dtmf_received_start_data", "NotifyDTMFReceivedStartedMessage"),
    ("notify_dtmf_received_end_data", "NotifyDTMFReceivedEndedMessage"),
    ("notify_playback_started_data", "NotifyAudioPlaybackStartedMessage"),
    ("notify_playback_completed_data", "NotifyAudioPlaybackCompletedMessage"),
    ("notify_audio_cleared_data", "NotifyAudioBufferClearedMessage"),
    ("notify_dtmf_play_started_data", "NotifyDTMFPlayStartedMessage"),
    ("notify_dtmf_play_completed_data", "NotifyDTMFPlayCompletedMessage"),
    ("notify_call_ended", "NotifyCallEndedMessage"),
    ("notify_error", "NotifyErrorMessage"),
    ("notify_buffer", "NotifyBufferDepthMessage"),
)
_APP_PAYLOAD = (
    ("audio_data", "PlayAudioMessage"),
    ("clear_audio_buffer", "ClearAudioBufferMessage"),
    ("dtmf_data", "PressDTMFMessage"),
    ("terminate_call", "TerminateCallMessage"),
    ("end_stream", "EndGrpcStreamMessage"),
    ("query_buffer", "QueryBufferDepthMessage"),
)

_FieldProto = descriptor_pb2.FieldDescriptorProto
_SCALARS: Mapping[str, Any] = {
    "string": _FieldProto.TYPE_STRING,
    "bytes": _FieldProto.TYPE_BYTES,
    "bool": _FieldProto.TYPE_BOOL,
    "uint32": _FieldProto.TYPE_UINT32,
}


def file_descriptor() -> descriptor_pb2.FileDescriptorProto:
    """Return the table as protobuf's own description of the file."""
    file = descriptor_pb2.FileDescriptorProto(
        name=FILE, package="freeclimb", syntax="proto3", dependency=["google/protobuf/timestamp.proto"]
    )
    for name, messages, payload in (
        ("PlatformMessage", _PLATFORM, _PLATFORM_PAYLOAD),
        ("AppMessage", _APP, _APP_PAYLOAD),
    ):
        outer = file.message_type.add(name=name)
        for inner_name, (fields, enums, reserved) in messages.items():
            inner = outer.nested_type.add(name=inner_name)
            for enum_name, values in enums.items():
                enum = inner.enum_type.add(name=enum_name)
                for value_name, number in values.items():
                    enum.value.add(name=value_name, number=number)
            for field_name, (number, kind) in fields.items():
                _add_field(inner, f".freeclimb.{name}.{inner_name}", field_name, number, kind)
            for number in reserved:
                inner.reserved_range.add(start=number, end=number + 1)
        outer.oneof_decl.add(name="payload")
        for number, (field_name, inner_name) in enumerate(payload, 1):
            field = _add_field(outer, "", field_name, number, f".freeclimb.{name}.{inner_name}")
            field.oneof_index = 0
    service = file.service.add(name="GRPCStreamService")
    service.method.add(
        name="SendIVRData",
        input_type=".freeclimb.PlatformMessage",
        output_type=".freeclimb.AppMessage",
        client_streaming=True,
        server_streaming=True,
    )
    return file


def _add_field(
    message: descriptor_pb2.DescriptorProto, within: str, name: str, number: int, kind: str
) -> descriptor_pb2.FieldDescriptorProto:
    label = _FieldProto.LABEL_REPEATED if kind.startswith("*") else _FieldProto.LABEL_OPTIONAL
    kind = kind.removeprefix("*")
    field = message.field.add(name=name, number=number, label=label)
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    elif kind.startswith("."):
        field.type, field.type_name = _FieldProto.TYPE_MESSAGE, kind
    else:
        field.type, field.type_name = _FieldProto.TYPE_ENUM, f"{within}.{kind}"
    return field


def _classes() -> tuple[Any, Any]:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file_descriptor().SerializeToString())
    return tuple(  # type: ignore[return-value]  # two names, two classes
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"freeclimb.{name}"))
        for name in ("PlatformMessage", "AppMessage")
    )


PlatformMessage, AppMessage = _classes()

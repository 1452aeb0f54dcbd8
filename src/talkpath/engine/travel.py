"""What travels to a worker process: names of things that are imported there, and frozen options field by field.

A function cannot be sent to another process and need not be: its name can, ``"package.module:function"``, and the
worker imports it. Options can when they are plain; those that are not (a TLS context, a hook) are made over there, by
a function that is named.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any, TypeVar

from talkpath.errors import ConfigError

T = TypeVar("T")


def check_name(what: str, name: object) -> str:
    """Return a name that another process can import.

    Raises:
        ConfigError: it is not written ``package.module:function``, or names what only this process knows.
    """
    if not isinstance(name, str):
        raise ConfigError(
            f"{what} is of type {type(name).__name__}; another process is to import it, so give its name: "
            "'package.module:function'"
        )
    module, colon, attribute = name.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), *attribute.split("."))):
        raise ConfigError(f"{what} is {name!r}; write 'package.module:function'")
    if module == "__main__":
        raise ConfigError(
            f"{what} is {name!r}, and a worker's __main__ is another program; put it into a module that can be imported"
        )
    return name


def named(what: str, name: str) -> Any:
    """Import what a name of `check_name` stands for.

    Raises:
        ConfigError: it cannot be imported, or is not there; says why.
    """
    module, _, attribute = check_name(what, name).partition(":")
    try:
        found: Any = importlib.import_module(module)
    except Exception as exc:
        raise ConfigError(f"{what} {name!r} cannot be imported: {type(exc).__name__}: {exc}") from exc
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{what} {name!r} does not exist: the module {module} has no {attribute}")
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"{what} {name!r} is of type {type(found).__name__}; it must be a function")
    return found


def pack(what: str, options: Any) -> dict[str, Any]:
    """Write frozen options as plain values; fields that have their default stay at home.

    Args:
        what: for the error: ``engine``.
        options: a dataclass; so may its fields be.

    Raises:
        ConfigError: a field can only exist in this process.
    """
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if not field.init or value == _default(field):
            continue
        fields[field.name] = _packed(f"{what}.{field.name}", value)
    kind = type(options)
    return {"class": f"{kind.__module__}:{kind.__qualname__}", "fields": fields}


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _packed(what: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return pack(what, value)
    if isinstance(value, tuple | list):
        return [_packed(what, one) for one in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"map": {key: _packed(f"{what}[{key!r}]", one) for key, one in value.items()}}
    raise ConfigError(
        f"{what} is of type {type(value).__name__}, which cannot travel to a worker; name a function that makes the "
        f"options there instead: {what.partition('.')[0]}='package.module:function'"
    )


def unpack(packed: Mapping[str, Any]) -> Any:
    """Make the options that `pack` wrote."""
    kind = named("the options' class", packed["class"])
    return kind(**{name: _unpacked(value) for name, value in packed["fields"].items()})


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict):
        if "map" in value:
            return {key: _unpacked(one) for key, one in value["map"].items()}
        return unpack(value)
    if isinstance(value, list):
        return tuple(_unpacked(one) for one in value)
    return value


def made_by(what: str, options: Mapping[str, Any] | str, kind: type[T]) -> T:
    """Return options that were packed, or that a named function makes.

    Raises:
        ConfigError: the function cannot be imported, or makes something else.
    """
    made = named(what, options)() if isinstance(options, str) else unpack(options)
    if not isinstance(made, kind):
        raise ConfigError(f"{what} is of type {type(made).__name__}; it must be {kind.__name__}")
    return made


def to_travel(what: str, options: Any, kind: type) -> dict[str, Any] | str:
    """Return options, or the name of a function that makes them, as they travel.

    Raises:
        ConfigError: neither one nor the other.
    """
    if isinstance(options, str):
        return check_name(what, options)
    if not isinstance(options, kind):
        raise ConfigError(
            f"{what} is of type {type(options).__name__}; it must be {kind.__name__}, or the name of a function that "
            "makes one: 'package.module:function'"
        )
    return pack(what, options)

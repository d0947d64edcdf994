"""JSON read strictly into frozen dataclasses: nothing unknown, nothing missing, nothing of another type.

All faults are collected, each naming its place. Knows no bundle and no network.
"""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from taro_rt.engines.errors import ManifestError


def parse(text: str, name: str) -> dict[str, Any]:
    """The JSON object in `text`. Raises `ManifestError` for other text, a repeated key, NaN or infinity."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            repeated = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
            raise ManifestError(f"{name}: the key {repeated!r} stands twice in one object")
        return found

    def refuse(constant: str) -> Any:
        raise ManifestError(f"{name}: expected finite numbers, got {constant}")

    try:
        data = json.loads(text, object_pairs_hook=once, parse_constant=refuse)
    except (ValueError, RecursionError) as error:  # also a number of too many digits
        raise ManifestError(f"{name}: expected JSON, got text that is none ({error})") from None
    if not isinstance(data, dict):
        raise ManifestError(f"{name}: expected a JSON object, got {_kind_of(data)}")
    return data


def read(kind: Any, data: Any, where: str, faults: list[str]) -> Any:
    """`data` as `kind`: a dataclass, dict[str, ...], tuple, Literal, int, float, str, bool or Any.

    Of a union of dataclasses it is the one with these keys, or else meant as the first.
    Appends each fault to `faults`; what is returned is only good when none was added.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return data
    if origin is UnionType:
        keys = set(data) if isinstance(data, dict) else set()
        fitting = [each for each in inner if {field.name for field in fields(each)} == keys]
        return read((*fitting, inner[0])[0], data, where, faults)
    if is_dataclass(kind):
        return _read_record(kind, data, where, faults)
    if origin is Literal:
        if data not in inner:
            faults.append(f"{where}: expected one of {', '.join(map(repr, inner))}, got {data!r}")
        return data
    if origin is dict and isinstance(data, dict):
        return {key: read(inner[1], value, f"{where}.{key}", faults) for key, value in data.items()}
    if origin is tuple and isinstance(data, list):
        if inner[-1] is not Ellipsis and len(inner) != len(data):
            faults.append(f"{where}: expected {len(inner)} values, got {len(data)}")
        return tuple(read(inner[0], value, f"{where}[{i}]", faults) for i, value in enumerate(data))
    if kind is float and type(data) in (int, float) and math.isfinite(data):
        return float(data)
    if type(data) is kind:  # not isinstance: a bool is no int here
        return data
    faults.append(f"{where}: expected {_name_of(kind)}, got {_kind_of(data)}")
    return None


def _read_record(kind: Any, data: Any, where: str, faults: list[str]) -> Any:
    if not isinstance(data, dict):
        faults.append(f"{where}: expected an object, got {_kind_of(data)}")
        return None
    names, before = [field.name for field in fields(kind)], len(faults)
    faults += [f"{where}: unknown key {key!r}" for key in data if key not in names]
    faults += [f"{where}: missing key {key!r}" for key in names if key not in data]
    hints = get_type_hints(kind)
    values = {key: read(hints[key], data[key], f"{where}.{key}", faults) for key in names if key in data}
    return kind(**values) if len(faults) == before else None


def _name_of(kind: Any) -> str:
    origin = get_origin(kind) or kind
    names = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}
    return {**names, dict: "an object", tuple: "a list"}[origin]


def _kind_of(data: Any) -> str:
    if isinstance(data, dict):
        return "an object"
    if isinstance(data, list):
        return "a list"
    return json.dumps(data)

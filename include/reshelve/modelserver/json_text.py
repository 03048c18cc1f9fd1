"""JSON as TensorFlow Serving's parser takes it, and values as its error texts show them.

It stops behind the first value, takes `NaN`, `Inf` and `Infinity`, keeps a name that an object repeats, and does not ask
whether text is UTF-8. An object is a tuple of (name, value) here; a list is a list.
"""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from typing import Any

from reshelve.modelserver.serving_error import ServingError, invalid

Members = tuple[tuple[str, Any], ...]

NOTHING = object()  # no such member
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SPACE = re.compile(r"[ \t\r\n]*")
_OTHER_NAMES = re.compile(r'"(?:[^"\\]|\\.)*"|-?Inf(?:inity)?|-NaN', re.DOTALL)
_SHOWN = 256  # bytes, after which an error text shows no further value
_INTEGERS = range(-(2**63), 2**64)
_WHOLE_DIGITS = 21  # before a number is shown with an exponent


class Named(float):
    """A number that was spelled `NaN` or `Infinity`: an infinite one otherwise was too large."""


_DECODER = json.JSONDecoder(object_pairs_hook=tuple, parse_constant=Named)


def parse(body: bytes) -> Any:
    """The first value of the text. Raises ServingError (INVALID_ARGUMENT)."""
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    text = body.removeprefix(_BYTE_ORDER_MARK).decode("utf-8", "surrogateescape")
    try:
        return _decoded(text)
    except ServingError:
        respelled = _OTHER_NAMES.sub(_as_python_spells, text)
        if respelled == text:
            raise
        return _decoded(respelled)


def _decoded(text: str) -> Any:
    space = _SPACE.match(text)
    start = space.end() if space else 0
    if start == len(text):
        raise invalid(f"JSON Parse error: The document is empty. at offset: {start}")
    try:
        return _DECODER.raw_decode(text, start)[0]
    except json.JSONDecodeError as error:
        raise invalid(f"JSON Parse error: {error.msg}. at offset: {error.pos}") from error
    except ValueError as error:  # an integer of thousands of digits
        raise too_big() from error
    except RecursionError as error:
        raise invalid("JSON Parse error: Nested too deeply.") from error


def _as_python_spells(found: re.Match[str]) -> str:
    word = found[0]
    if word[0] == '"' or "N" in word:
        return word.removeprefix("-")
    return "-Infinity" if word[0] == "-" else "Infinity"


def too_big() -> ServingError:
    """The error for a number beyond what a double can hold."""
    return invalid("JSON Parse error: Number too big to be stored in double.")


def member(value: Members, name: str) -> Any:
    """The first member of that name, or NOTHING."""
    return next((found for key, found in value if key == name), NOTHING)


def to_bytes(text: str) -> bytes:
    """The bytes of a parsed string, those that are no UTF-8 as they came. Raises ServingError for half a surrogate pair."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        if re.search("[\ud800-\udbff]", text):
            raise invalid("JSON Parse error: The surrogate pair in string is invalid.") from None
        as_came = (
            c.encode("utf-8", "surrogateescape" if "\udc80" <= c <= "\udcff" else "surrogatepass")
            for c in text
        )
        return b"".join(as_came)


def to_text(text: str) -> str:
    """A parsed string as UTF-8 can hold it: what is none becomes U+FFFD. For names, which are looked up."""
    return to_bytes(text).decode("utf-8", "replace")


def shown(value: Any) -> str:
    """The value on lines of its own, or the beginning of a long one."""
    parts: list[str] = []
    _show(value, 0, parts)
    return "".join(parts)


def _show(value: Any, level: int, parts: list[str]) -> bool:
    """False where the text is full."""
    if sum(map(len, parts)) >= _SHOWN:
        return False
    if isinstance(value, tuple):
        return _show_object(value, level, parts)
    if isinstance(value, list):
        parts.append("[")
        for place, element in enumerate(value):
            if sum(map(len, parts)) >= _SHOWN:
                return False
            parts.append(", " if place else "")
            if not _show(element, level + 1, parts):
                return False
        parts.append("]")
        return True
    if isinstance(value, int) and value not in _INTEGERS:
        value = float(value) if value.bit_length() < 1024 else math.inf
    if isinstance(value, float) and not math.isfinite(value):
        return False
    parts.append(_number(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False))
    return True


def _show_object(value: Members, level: int, parts: list[str]) -> bool:
    parts.append("{")
    for place, (name, element) in enumerate(value):
        if sum(map(len, parts)) >= _SHOWN:
            return False
        parts.append(",\n" if place else "\n")
        parts.append("    " * (level + 1) + json.dumps(name, ensure_ascii=False) + ": ")
        if not _show(element, level + 1, parts):
            return False
    parts.append("\n" + "    " * level + "}" if value else "}")
    return True


def _number(value: float) -> str:
    """The shortest digits that read back as the same double."""
    sign, digits, exponent = Decimal(repr(value)).as_tuple()
    text = "".join(map(str, digits)).rstrip("0") or "0"
    point = len(digits) + int(exponent)
    if text == "0" or not -6 < point <= _WHOLE_DIGITS:
        shape = "0.0" if text == "0" else f"{text[0]}{'.' + text[1:] if len(text) > 1 else ''}e{point - 1}"
    elif point >= len(text):
        shape = text + "0" * (point - len(text)) + ".0"
    elif point > 0:
        shape = f"{text[:point]}.{text[point:]}"
    else:
        shape = "0." + "0" * -point + text
    return ("-" if sign else "") + shape

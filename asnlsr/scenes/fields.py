"""The text of an ENVI header: its fields as they stand there, read and written."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# The name of a field, and the brace or the words with which its value begins.
_FIELD = re.compile(r"^[ \t]*([^;={}\s][^={}\n]*?)[ \t]*=(?:\s*(\{)|([^\n]*))", re.MULTILINE)


def read_fields(hdr: Path) -> dict[str, Any]:
    """Return all fields of an ENVI header as text, those in braces as lists of it."""
    if not hdr.is_file():
        raise FileNotFoundError(f"{hdr}: no such header file; give the path of the .hdr")
    with hdr.open("rb") as file:
        head = file.read(4096)
        if not _decoded(head).lstrip().upper().startswith("ENVI"):
            raise ValueError(f"{hdr}: not an ENVI header; give the .hdr of the scene")
        text = _decoded(head + file.read())
    header: dict[str, Any] = {}
    place = 0
    while match := _FIELD.search(text, place):
        key, place = " ".join(match[1].lower().split()), match.end()
        value: str | list[str] = (match[3] or "").partition(";")[0].strip(" \t,")
        if match[2]:
            place = _closing(text, place, f"{hdr}: {key}")
            value = text[match.end() : place].strip()
            if key != "description":
                items = re.sub(r";[^\n]*", "", value).rstrip(", \t\n").split(",")
                value = [item.strip() for item in items]
        if header.setdefault(key, value) != value:
            raise ValueError(f"{hdr}: {key} stands there twice; remove the wrong one")
    return header


def _decoded(raw: bytes) -> str:
    """Return the text of a header: UTF-16 if it says so, UTF-8 if it can be, else Latin-1."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = raw.decode("utf-16", "replace")
    else:
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = raw.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _closing(text: str, start: int, field: str) -> int:
    """Return where the brace is that closes the one before `start`."""
    depth = 1
    for brace in re.compile("[{}]").finditer(text, start):
        depth += 1 if brace[0] == "{" else -1
        if not depth:
            return brace.start()
    raise ValueError(f"{field}: its brace is not closed; is the header cut off?")


def write_fields(path: Path, fields: Mapping[str, object]) -> None:
    """Write a header in UTF-8."""
    lines = [f"{key} = {_written(key, value)}\n" for key, value in fields.items()]
    path.write_text("".join(["ENVI\n", *lines]), encoding="utf-8", errors="replace")


def _written(key: str, value: object) -> str:
    """Write the value of a field so that it is read back as it is."""
    if isinstance(value, str):
        text = " ".join(value.split())
        if key == "description":
            text = "{" + text.replace("{", "(").replace("}", ")") + "}"
        return text
    return "{ " + " , ".join(map(str, value)) + " }" if isinstance(value, Iterable) else str(value)

#!/usr/bin/env python3
"""Reads a recording of kvmtrace and prints its events as lines of JSON.

Written from docs/recording-format.md alone, as a proof that the page is enough and as a start for other readers.
It needs Python 3.8 and something that unpacks zstd: the modules compression.zstd (Python 3.14), zstandard or pyarrow,
or the command zstd.

    reader.py FILE
"""

import json
import os
import struct
import subprocess
import sys
import zlib
from datetime import datetime, timezone
from ipaddress import ip_address

LARGEST_BLOCK = 8 << 20
LARGEST_RATIO = 256
MOST_VALUES = 1 << 20
SYNC = bytes.fromhex("ab4b56ba")


class Damaged(Exception):
    """Bytes that are no event, or no block."""



def unpack(packed, size):
    """One zstd frame; `size` was checked before."""
    try:
        from compression import zstd

        return zstd.decompress(packed)
    except ImportError:
        pass
    try:
        import zstandard

        return zstandard.ZstdDecompressor().decompress(packed, max_output_size=size)
    except ImportError:
        pass
    try:
        import pyarrow

        return pyarrow.decompress(packed, size, codec="zstd", asbytes=True)
    except ImportError:
        return subprocess.run(["zstd", "-d", "-c", "-q"], input=packed, stdout=subprocess.PIPE, check=True).stdout


class Values:
    """Decodes values by the description of their types."""

    def __init__(self, types, data, position):
        self.types, self.data, self.position, self.values = types, data, position, 0

    def take(self, count):
        if count > len(self.data) - self.position:
            raise Damaged("cut short")
        begin, self.position = self.position, self.position + count
        return self.data[begin : self.position]

    def varint(self):
        number = shift = 0
        while True:
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
            shift += 7
            if shift > 63:
                raise Damaged("a number of more than 64 bits")

    def named(self, name):
        """A value of the type with this name."""
        kind, what = one(self.types[name]) if isinstance(self.types[name], dict) else (self.types[name], None)
        if kind == "UNITSTRUCT":
            return None
        if kind == "NEWTYPESTRUCT":
            return self.value(what)
        if kind == "TUPLESTRUCT":
            return [self.value(format) for format in what]
        if kind == "STRUCT":
            return self.fields(what)
        variants = {int(number): variant for number, variant in what.items()}
        number = self.varint()
        if number not in variants:
            raise Damaged(f"{name} has no variant {number}")
        variant, holds = one(variants[number])
        if holds == "UNIT":
            return variant
        kind, what = one(holds)
        if kind == "NEWTYPE":
            return {variant: self.value(what)}
        return {variant: self.fields(what) if kind == "STRUCT" else [self.value(format) for format in what]}

    def fields(self, fields):
        return {name: self.value(format) for name, format in map(one, fields)}

    def value(self, format):
        self.values += 1
        if self.values > MOST_VALUES:
            raise Damaged("too many values")
        if isinstance(format, str):
            return self.plain(format)
        kind, what = one(format)
        if kind == "TYPENAME":
            return pretty(what, self.named(what))
        if kind == "OPTION":
            return self.value(what) if self.plain("BOOL") else None
        if kind == "SEQ":
            return [self.value(what) for _ in range(self.length())]
        if kind == "MAP":
            return {self.value(what["KEY"]): self.value(what["VALUE"]) for _ in range(self.length())}
        if kind == "TUPLE":
            return [self.value(format) for format in what]
        if kind == "TUPLEARRAY":
            return [self.value(what["CONTENT"]) for _ in range(what["SIZE"])]
        raise Damaged(f"no format {kind}")

    def length(self):
        length = self.varint()
        if length > len(self.data) - self.position:
            raise Damaged("a list that is longer than its bytes")
        return length

    def plain(self, format):
        if format in ("U16", "U32", "U64"):
            return self.varint()
        if format in ("I16", "I32", "I64"):
            number = self.varint()
            return (number >> 1) ^ -(number & 1)
        if format == "U8":
            return self.take(1)[0]
        if format == "I8":
            return struct.unpack("<b", self.take(1))[0]
        if format == "BOOL":
            return {0: False, 1: True}[self.take(1)[0]]
        if format == "F32":
            return struct.unpack("<f", self.take(4))[0]
        if format == "F64":
            return struct.unpack("<d", self.take(8))[0]
        if format in ("STR", "CHAR"):
            return self.take(self.varint()).decode()
        if format == "BYTES":
            return self.take(self.varint()).hex()
        if format == "UNIT":
            return None
        raise Damaged(f"no format {format}")


def one(pair):
    """Key and value of an object with one key."""
    ((key, value),) = pair.items()
    return key, value


def pretty(name, value):
    """IP addresses as people write them."""
    if name == "IpAddr":
        return str(ip_address(bytes(one(value)[1])))
    return value


def rfc3339(nanoseconds):
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%dT%H:%M:%S}.{rest:09}Z"


def blocks(data, complain):
    """Tag and unpacked payload of each block that checks out."""
    at, damaged_at = 16, None
    while at < len(data):
        block = None
        if data[at : at + 4] == SYNC and at + 24 <= len(data):
            tag, flags, stored, plain, crc = struct.unpack_from("<4sIIII", data, at + 4)
            end = at + 24 + stored
            if stored <= LARGEST_BLOCK and plain <= LARGEST_BLOCK and end <= len(data):
                payload = data[at + 24 : end]
                if zlib.crc32(payload, zlib.crc32(data[at + 4 : at + 20])) == crc:
                    block = payload
        if block is None:
            damaged_at = at if damaged_at is None else damaged_at
            at += 1
            continue
        if damaged_at is not None:
            complain(f"{at - damaged_at} bytes at {damaged_at} are damaged")
            damaged_at = None
        if flags & ~1 == 0 and plain <= LARGEST_RATIO * stored:
            yield tag, unpack(payload, plain) if flags & 1 else payload
        at = end
    if damaged_at is not None:
        complain(f"{at - damaged_at} bytes at {damaged_at} are damaged")


def events(path, complain):
    """The events of a file, each as a dictionary of its time and its kind; before them the header."""
    with open(path, "rb") as file:
        data = file.read()
    magic, order, format = struct.unpack_from("<8sII", data)
    if magic != b"KVMTRACE" or order != 0x0A0B0C0D:
        raise SystemExit(f"{path} is not a recording")
    if format != 1:
        raise SystemExit(f"{path} has format {format}; this program reads 1")
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "../../kvmtrace/src/record/schema/schema-1.json"), "rb") as file:
        first_schema = json.load(file)
    types = {}
    ended = False
    for tag, payload in blocks(data, complain):
        if tag == b"HEAD":
            yield {"header": json.loads(payload)}
        elif tag == b"TYPE":
            types[zlib.crc32(payload)] = json.loads(payload)
        elif tag == b"TAIL":
            ended = True
        elif tag in (b"EVTS", b"SNAP"):
            (schema,) = struct.unpack_from("<I", payload)
            if schema == 1:
                values = Values(first_schema, payload, 4)
            elif schema == 2:
                (description,) = struct.unpack_from("<I", payload, 4)
                if description not in types:
                    complain("a batch follows a description that the file does not have")
                    continue
                values = Values(types[description], payload, 8)
            else:
                raise SystemExit(f"{path} has events of schema {schema}; this program reads 1 and 2")
            while values.position < len(payload):
                values.values = 0
                try:
                    yield values.named("Event")
                except (Damaged, KeyError, UnicodeDecodeError) as error:
                    complain(f"the rest of a batch is damaged: {error}")
                    break
    if not ended:
        complain("it has no end")


def main():
    (path,) = sys.argv[1:]

    def complain(what):
        print(f"{path}: {what}", file=sys.stderr)

    for event in events(path, complain):
        if "time" in event:
            event["time"] = rfc3339(event["time"])
        print(json.dumps(event))


if __name__ == "__main__":
    main()

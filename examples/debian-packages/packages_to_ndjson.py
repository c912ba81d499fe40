#!/usr/bin/env python3
"""Turns the package records of Debian into NDJSON: one package per line, nested, in a fixed order.

    apt-cache dumpavail | ./packages_to_ndjson.py > packages.ndjson

Reads paragraphs of `Field: value` lines with continuation lines (deb822) from standard input or from a file.
The same input gives the same bytes: packages are sorted by name, version and architecture, fields keep the order below.
Exit code 0; 1 for input that is no such list, with the line; 2 for wrong usage.
"""

import argparse
import json
import re
import sys

RELATIONS = (
    "Pre-Depends", "Depends", "Recommends", "Suggests", "Enhances", "Breaks", "Conflicts", "Replaces", "Provides",
)
# `name:any (>= 1.0)`; anything else keeps its text.
RELATION = re.compile(
    r"^(?P<name>[A-Za-z0-9][A-Za-z0-9+.\-]*)(?::(?P<qualifier>[a-z0-9\-]+))?"
    r"(?:\s*\((?P<operator><<|<=|=|>=|>>|<|>)\s*(?P<version>[^)\s]+)\s*\))?\s*$"
)
PERSON = re.compile(r"^\s*(?P<name>.*?)\s*<(?P<address>[^<>]*)>\s*$", re.DOTALL)
SOURCE = re.compile(r"^(?P<name>\S+)(?:\s+\((?P<version>[^)]*)\))?$")


class BadInput(Exception):
    """The input is not a list of paragraphs; the message names the line."""


def paragraphs(lines):
    """Yields one dictionary of fields per paragraph; `lines` are bytes."""
    fields, name = {}, None
    for number, raw in enumerate(lines, start=1):
        try:
            line = raw.decode("utf-8").rstrip("\n").rstrip("\r")
        except UnicodeDecodeError as error:
            raise BadInput(f"line {number} is not UTF-8: {error.reason} at byte {error.start}") from error
        if not line.strip():
            if fields:
                yield fields
            fields, name = {}, None
        elif line[0] in " \t":
            if name is None:
                raise BadInput(f"line {number} continues a field, but none began")
            fields[name] += "\n" + line[1:]
        else:
            name, colon, value = line.partition(":")
            if not colon or not name or " " in name:
                raise BadInput(f"line {number} is neither a field nor a continuation: {line[:60]!r}")
            if name in fields:
                raise BadInput(f"line {number} repeats the field {name}")
            fields[name] = value.strip()
    if fields:
        yield fields


def relations(text):
    """`a (>= 1) | b, c:any` becomes `[[a, b], [c]]`: all groups are needed, of each group one."""
    groups = (group.strip() for group in text.replace("\n", " ").split(","))
    return [[relation(part.strip()) for part in group.split("|")] for group in groups if group]


def relation(text):
    match = RELATION.match(text)
    if match is None:
        return {"text": text}
    found = {"name": match["name"]}
    if match["qualifier"]:
        found["architecture"] = match["qualifier"]
    if match["operator"]:
        found["version"] = {"operator": match["operator"], "value": match["version"]}
    return found


def tags(text):
    """`role::program, use::gameplaying` becomes `{"role": ["program"], "use": ["gameplaying"]}`."""
    found = {}
    for tag in (tag.strip() for tag in text.replace("\n", " ").split(",")):
        if tag:
            facet, _, value = tag.partition("::")
            found.setdefault(facet, []).append(value)
    return {facet: sorted(values) for facet, values in sorted(found.items())}


def person(text):
    match = PERSON.match(text)
    return {"name": match["name"].strip('"'), "address": match["address"]} if match else {"name": text}


def source(text, package, version):
    match = SOURCE.match(text) if text else None
    return {
        "name": match["name"] if match else package,
        "version": (match["version"] if match else None) or version,
    }


def description(text):
    """The first line is the summary; of the rest ` .` lines are empty lines between paragraphs."""
    summary, _, rest = text.partition("\n")
    lines = ("" if line == "." else line for line in rest.split("\n")) if rest else ()
    return summary, "\n".join(lines)


def number(fields, name):
    text = fields.pop(name, None)
    if text is None or not text.isdigit():
        return None
    return int(text)


def package(fields):
    """The nested form of one paragraph. What it does not know goes unchanged into `other`."""
    fields = dict(fields)
    for wanted in ("Package", "Version"):
        if wanted not in fields:
            raise BadInput(f"a paragraph has no field {wanted}: {next(iter(fields.items()))}")
    name, version = fields.pop("Package"), fields.pop("Version")
    described = next((field for field in ("Description", "Description-en") if field in fields), None)
    summary, text = description(fields.pop(described)) if described else ("", "")
    maintainer = fields.pop("Maintainer", None)
    found = {
        "name": name,
        "version": version,
        "architecture": fields.pop("Architecture", None),
        "multi_arch": fields.pop("Multi-Arch", None),
        "source": source(fields.pop("Source", ""), name, version),
        "maintainer": person(maintainer) if maintainer is not None else None,
        "section": fields.pop("Section", None),
        "priority": fields.pop("Priority", None),
        "essential": fields.pop("Essential", "no") == "yes",
        "installed_kib": number(fields, "Installed-Size"),
        "homepage": fields.pop("Homepage", None),
        "summary": summary,
        "description": text,
        "tags": tags(fields.pop("Tag", "")),
        "relations": {
            field.lower().replace("-", "_"): relations(fields.pop(field)) for field in RELATIONS if field in fields
        },
        "file": {
            "path": fields.pop("Filename", None),
            "bytes": number(fields, "Size"),
            "md5": fields.pop("MD5sum", None),
            "sha256": fields.pop("SHA256", None),
        },
        "other": {field: fields[field] for field in sorted(fields)},
    }
    return {key: value for key, value in found.items() if value not in (None, {}, "")}


def convert(lines, out, limit=None):
    """Writes one line per package; answers how many packages and bytes."""
    packages = [package(fields) for fields in paragraphs(lines)]
    packages.sort(key=lambda p: (p["name"], p["version"], p.get("architecture", "")))
    written = 0
    for found in packages[:limit]:
        line = json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n"
        out.write(line)
        written += len(line)
    return len(packages[:limit]), written


def main():
    parser = argparse.ArgumentParser(description="Debian's package records as NDJSON, one package per line.")
    parser.add_argument("file", nargs="?", help="the output of `apt-cache dumpavail`; default: standard input")
    parser.add_argument("--limit", type=int, help="write at most this many packages")
    arguments = parser.parse_args()
    if arguments.limit is not None and arguments.limit < 0:
        parser.error("--limit is a number of packages, 0 or more")
    try:
        if arguments.file:
            with open(arguments.file, "rb") as lines:
                count, size = convert(lines, sys.stdout.buffer, arguments.limit)
        else:
            count, size = convert(sys.stdin.buffer, sys.stdout.buffer, arguments.limit)
        sys.stdout.buffer.flush()
    except (BadInput, OSError) as error:
        sys.exit(f"packages_to_ndjson: {error}")
    print(f"{count} packages, {size} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()

"""Tests of the converter: python3 -m unittest discover examples/debian-packages"""

import io
import json
import unittest

import packages_to_ndjson as converter

PARAGRAPHS = """\
Package: zebra
Version: 2:1.0-1
Architecture: amd64
Source: stripes (1.0-1)
Essential: yes
Maintainer: Zoë Ångström <zoe@example.org>
Installed-Size: 12
Depends: libc6 (>= 2.34), python3:any | python3.11 (<< 3.12~),
 perl
Description: draws stripes
 First paragraph, indented:
  code
 .
 Second paragraph — with UTF-8: 縞馬 🦓
Tag: role::program, interface::x11,
 role::app-data
Filename: pool/z/zebra.deb
Size: 4096
SHA256: 00ff
Phased-Update-Percentage: 10

Package: aardvark
Version: 1

""".encode()


def converted(text, **options):
    out = io.BytesIO()
    counts = converter.convert(io.BytesIO(text), out, **options)
    return [json.loads(line) for line in out.getvalue().splitlines()], counts, out.getvalue()


class Converter(unittest.TestCase):
    maxDiff = None

    def test_nested_fields_and_continuation_lines_become_json(self):
        (_, zebra), _, _ = converted(PARAGRAPHS)
        self.assertEqual(zebra, {
            "name": "zebra",
            "version": "2:1.0-1",
            "architecture": "amd64",
            "source": {"name": "stripes", "version": "1.0-1"},
            "maintainer": {"name": "Zoë Ångström", "address": "zoe@example.org"},
            "essential": True,
            "installed_kib": 12,
            "summary": "draws stripes",
            "description": "First paragraph, indented:\n code\n\nSecond paragraph — with UTF-8: 縞馬 🦓",
            "tags": {"interface": ["x11"], "role": ["app-data", "program"]},
            "relations": {"depends": [
                [{"name": "libc6", "version": {"operator": ">=", "value": "2.34"}}],
                [
                    {"name": "python3", "architecture": "any"},
                    {"name": "python3.11", "version": {"operator": "<<", "value": "3.12~"}},
                ],
                [{"name": "perl"}],
            ]},
            "file": {"path": "pool/z/zebra.deb", "bytes": 4096, "md5": None, "sha256": "00ff"},
            "other": {"Phased-Update-Percentage": "10"},
        })

    def test_output_does_not_depend_on_the_order_of_the_input(self):
        first, second = PARAGRAPHS.rstrip(b"\n").split(b"\n\n")
        _, counts, forward = converted(PARAGRAPHS)
        _, _, backward = converted(second + b"\n\n" + first + b"\n")
        self.assertEqual(forward, backward)
        self.assertEqual(counts, (2, len(forward)))
        self.assertTrue(forward.startswith(b'{"name":"aardvark"'))

    def test_limit_cuts_after_sorting(self):
        packages, counts, _ = converted(PARAGRAPHS, limit=1)
        self.assertEqual([p["name"] for p in packages], ["aardvark"])
        self.assertEqual(counts[0], 1)

    def test_a_relation_of_unknown_form_keeps_its_text(self):
        self.assertEqual(converter.relations("a [linux-any]"), [[{"text": "a [linux-any]"}]])

    def test_bad_input_names_the_line(self):
        for text, message in [
            (b"Package: a\nno colon here\n", "line 2 is neither"),
            (b" continued\n", "line 1 continues a field"),
            (b"Package: a\nPackage: b\n", "line 2 repeats the field Package"),
            (b"Package: a\nVersion: \xff\n", "line 2 is not UTF-8"),
            (b"Version: 1\n", "a paragraph has no field Package"),
        ]:
            with self.assertRaisesRegex(converter.BadInput, message):
                converted(text)


if __name__ == "__main__":
    unittest.main()

# Writes unicode_classes.inc, beside this file: which code points are letters and which are numbers to
# tiktoken, found by asking it. For those who take over a new Unicode version; neither the build nor the tests
# need it.
#   pip install tiktoken tokenizers && python3 tokenizer/make_unicode_classes.py
# The regular expressions of `tokenizers` must agree with tiktoken's on every code point, or nothing is written.
import os

import tiktoken
import tokenizers
from tokenizers import Regex, normalizers

POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]          # surrogates are not encoded
ALL = "".join(map(chr, POINTS))
SPACES = [*range(0x9, 0xE), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F,
          0x3000]   # as in pretokenize.cpp


def by_tiktoken(pattern):            # what the pattern does not match is dropped; what it matches comes back byte by byte
    encoding = tiktoken.Encoding("classes", pat_str=pattern, mergeable_ranks={bytes([b]): b for b in range(256)}, special_tokens={})
    return [ord(c) for c in bytes(encoding.encode_ordinary(ALL)).decode()]


def by_tokenizers(pattern):
    kept = normalizers.Replace(Regex(pattern.replace("\\p", "\\P").replace("\\s", "\\S")), "")
    return [ord(c) for at in range(0, len(ALL), 4096) for c in kept.normalize_str(ALL[at : at + 4096])]


def ranges(points):
    pairs = []
    for c in points:
        if pairs and pairs[-1][1] == c - 1:
            pairs[-1][1] = c
        else:
            pairs.append([c, c])
    return pairs


classes = {}
for name, pattern in (("LETTERS", r"\p{L}"), ("NUMBERS", r"\p{N}"), ("SPACES", r"\s")):
    classes[name] = by_tiktoken(pattern)
    assert classes[name] == by_tokenizers(pattern), pattern
assert classes["SPACES"] == SPACES

kind = {c: 0 for c in SPACES} | {c: 1 for c in classes["LETTERS"]} | {c: 2 for c in classes["NUMBERS"]}
fingerprint = 14695981039346656037                                         # FNV-1a over one byte a code point
for c in range(0x110000):
    fingerprint = (fingerprint ^ kind.get(c, 3)) * 1099511628211 % 2**64

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "unicode_classes.inc"), "w") as out:
    print(f"// Letters (\\p{{L}}) and numbers (\\p{{N}}) as tiktoken {tiktoken.__version__} and tokenizers "
          f"{tokenizers.__version__} know them: {len(classes['LETTERS'])} and {len(classes['NUMBERS'])}", file=out)
    print("// code points (Unicode 16: 141028 and 1911).", file=out)
    print("// Written by make_unicode_classes.py; first and last code point of every range. Included by pretokenize.cpp.", file=out)
    for name in ("LETTERS", "NUMBERS"):
        print(f"static constexpr Range {name}[] = {{", file=out)
        line = ""
        for first, last in ranges(classes[name]):
            item = f"{{0x{first:X}, 0x{last:X}}},"
            if len(line) + len(item) > 113:
                print("   " + line, file=out)
                line = ""
            line += " " + item
        print("   " + line, file=out)
        print("};", file=out)
    print("// FNV-1a over all code points, one byte each: 0 space, 1 letter, 2 number, 3 other. "
          "From tiktoken, not from the ranges.", file=out)
    print(f"static constexpr uint64_t UNICODE_CLASSES_FNV = 0x{fingerprint:016x};", file=out)

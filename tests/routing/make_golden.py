"""Writes golden_split.jsonl.gz: the split told a second time, straight from its definition, in whole numbers and 40 decimal digits.

Nothing of `routing` is imported and nothing is shared with it, not even the way to a logarithm. Each line holds a salt, the arms, a
unit in one of its forms, its canonical text, and the bucket and arm it must get. Run it only when the definition changes, which deals
every unit of every user anew: python tests/routing/make_golden.py
"""

import gzip
import hashlib
import json
import unicodedata
from collections.abc import Iterator
from decimal import Decimal, getcontext
from pathlib import Path

GOLDEN = Path(__file__).with_name("golden_split.jsonl.gz")
ROUTES = 200
UNITS_PER_ROUTE = 50
TWO_64 = 1 << 64

getcontext().prec = 40

WEIGHTS = (
    [("champion", 1)],
    [("champion", 90), ("challenger", 10)],
    [("challenger", 10), ("champion", 90)],
    [("champion", 0.5), ("challenger", 0.5)],
    [("champion", 99.9), ("challenger", 0.1), ("dark", 0)],
    [("a", 1), ("b", 2), ("c", 3), ("d", 4)],
    [("champion", 1e9), ("challenger", 1e-9)],
    [(f"arm-{number:02}", 1 + number % 3) for number in range(32)],
)
LETTERS = ("é", "e\u0301", "ß", "İ", "ﬁ", "Å", "漢", "𝒳", "ñ", "\u1e9b\u0323")


def main() -> None:
    lines = "".join(json.dumps(vector) + "\n" for vector in vectors())
    GOLDEN.write_bytes(gzip.compress(lines.encode(), compresslevel=9, mtime=0))


def vectors() -> Iterator[dict[str, object]]:
    for route in range(ROUTES):
        salt = f"salt-{route}" if route % 5 else f"sälz-{LETTERS[route % 10]}-{route}"
        weights = WEIGHTS[route % len(WEIGHTS)]
        for number in range(UNITS_PER_ROUTE):
            form, unit, text = make_unit(number % 10, route * UNITS_PER_ROUTE + number)
            hashed = bytes.fromhex(text) if form == "prediction_id" else text.encode()
            bucket = bucket_of(salt, hashed)
            arms = [{"name": name, "weight": weight} for name, weight in weights]
            vector: dict[str, object] = {"salt": salt, "arms": arms, "form": form, "unit": unit, "text": text}
            yield vector | {"bucket": bucket, "arm": arm_of(salt, weights, bucket)}


def make_unit(form: int, number: int) -> tuple[str, object, str]:
    """Form, value as JSON holds it, and canonical text (of a prediction id: its hexadecimal digits)."""
    match form:
        case 0 | 1:
            return "text", f"user-{number}", f"user-{number}"
        case 2:
            text = f"{LETTERS[number // 10 % 10]}{number}"
            return "text", text, unicodedata.normalize("NFC", text)
        case 3:
            text = f"{LETTERS[number // 10 % 10]}-{number}"
            return "bytes", text.encode().hex(), unicodedata.normalize("NFC", text)
        case 4:
            return "int", number, str(number)
        case 5:
            return "int", -(number**4), str(-(number**4))
        case 6:
            return "float", float(number * 10**6), str(number * 10**6)
        case 7:
            return "float", number + 0.25, f"{number}.25"
        case 8:
            return "bool", number % 20 == 8, "true" if number % 20 == 8 else "false"
        case _:
            digits = hashlib.sha256(b"prediction %d" % number).hexdigest()[:32]
            return "prediction_id", digits, digits


def bucket_of(salt: str, unit: bytes) -> int:
    return int(sha(salt, unit)[:4], 16)


def arm_of(salt: str, weights: list[tuple[str, float]], bucket: int) -> str:
    keys = []
    for name, weight in weights:
        if weight > 0:
            word = splitmix64(bucket ^ int(sha(salt, name.encode())[:16], 16))
            uniform = (Decimal(word // 4096) + Decimal("0.5")) / Decimal(2**52)
            keys.append((-uniform.ln() / Decimal(weight), name.encode(), name))
    return min(keys)[2]


def sha(salt: str, rest: bytes) -> str:
    return hashlib.sha256(unicodedata.normalize("NFC", salt).encode() + b"\x00" + rest).hexdigest()


def splitmix64(word: int) -> int:
    word = (word + 0x9E3779B97F4A7C15) % TWO_64
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) % TWO_64
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) % TWO_64
    return word ^ (word >> 31)


if __name__ == "__main__":
    main()

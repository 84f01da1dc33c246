"""The split: a unit's bucket by one hash, and the arm of each of the 65,536 buckets by weighted rendezvous, compiled into one table.

    bucket = first 16 bits (big-endian) of SHA-256(salt ∥ 0 ∥ unit)
    arm    = the arm with the least −ln(u) / weight, where
             z = splitmix64(bucket xor first 8 bytes (big-endian) of SHA-256(salt ∥ 0 ∥ arm's name))
             u = (⌊z / 2¹²⌋ + ½) / 2⁵²            exact in a double, never 0, never 1

Salt, names and units are NFC text in UTF-8. Equal keys go to the name that comes first in UTF-8; so the order of the variants in the
document means nothing. An arm of weight 0 gets no bucket. Raising one arm's weight lowers only its own keys: it moves only the units
that it gains.

The table has to come out bit for bit the same on every machine, and the logarithms of libm and numpy do not (vectorised forms differ in
the last place). So the logarithm here is made of +, −, ×, ÷ alone, which IEEE 754 rounds one way only. `docs/split.sql` has the same in SQL.
"""

import hashlib
import math
import unicodedata
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

BUCKETS: Final = 65_536
ARMS_MAX: Final = 32
WEIGHT_MIN: Final = 1e-9
WEIGHT_MAX: Final = 1e9
"""A positive weight lies between these, so that no key overflows or vanishes."""

LN_2: Final = 0.6931471805599453
SQRT_HALF: Final = 0.7071067811865476
"""The doubles nearest to ln 2 and √½, written out: a library's own might differ in the last place."""

_Doubles = npt.NDArray[np.float64]
_Words = npt.NDArray[np.uint64]


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """A compiled split.

    `arms[bucket]` is the index into `names`; `shares` are exact (buckets of the arm / 65,536); `sha256` is the hex digest of `arms`.
    """

    salt: str
    names: tuple[str, ...]
    arms: bytes
    shares: tuple[float, ...]
    sha256: str


def canonical_unit(value: str | bytes | float | bool) -> bytes:
    """The bytes of a unit, the same whichever way it came: header text, JSON number, tensor element.

    Integers in decimal; integral floats as integers (−0.0 is 0); other floats by their shortest round-trip text (`repr`); booleans as
    `true` and `false`; text in NFC; bytes as the UTF-8 text they hold, or as they are if they hold none.
    The empty result means no unit: empty text, NaN, infinity.
    """
    match value:
        case str():
            return (
                value.encode()
                if value.isascii()
                else unicodedata.normalize("NFC", value).encode("utf-8", "surrogatepass")
            )
        case bytes():
            try:
                return value if value.isascii() else canonical_unit(value.decode())
            except UnicodeDecodeError:
                return value
        case bool():
            return b"true" if value else b"false"
        case int():
            return b"%d" % value
        case float():
            if not math.isfinite(value):
                return b""
            return b"%d" % int(value) if value.is_integer() else repr(value).encode()


def bucketing(salt: bytes) -> Callable[[bytes], int]:
    """The bucket of a unit under this salt, as a function with the salt already hashed (0.3 us a call, against 0.4 us hashed whole)."""
    salted = hashlib.sha256(salt + b"\0")

    def bucket(unit: bytes) -> int:
        state = salted.copy()
        state.update(unit)
        digest = state.digest()
        return digest[0] << 8 | digest[1]

    return bucket


def bucket_of(salt: bytes, unit: bytes) -> int:
    """The bucket of one canonical unit; for many units of one salt take `bucketing`."""
    return int.from_bytes(hashlib.sha256(salt + b"\0" + unit).digest()[:2], "big")


def compile_split(salt: str, weights: Sequence[tuple[str, float]]) -> Split:
    """Compiles names and weights into the table of arms; about 3 ms an arm.

    Raises ValueError for what `routing.validate` refuses: no arm or more than 32, a name twice, a weight that is neither 0 nor from
    1e-9 to 1e9, no positive weight.
    """
    _check(weights)
    least = np.full(BUCKETS, np.inf)
    arms = np.zeros(BUCKETS, dtype=np.uint8)
    by_name = sorted(range(len(weights)), key=lambda index: canonical_unit(weights[index][0]))
    for index in by_name:
        name, weight = weights[index]
        if weight == 0:
            continue
        keys = exponentials(salt, name) / weight
        # Strictly less: of equal keys the first name in UTF-8 has been here before and stays.
        wins = keys < least
        least[wins] = keys[wins]
        arms[wins] = index
    return split_of(salt, [name for name, _ in weights], arms.tobytes())


def split_of(salt: str, names: Sequence[str], arms: bytes) -> Split:
    """The split whose table is known: one index into `names` for each bucket. 0.3 ms, most of it the digest."""
    counts = np.bincount(np.frombuffer(arms, dtype=np.uint8), minlength=len(names))
    return Split(
        salt=salt,
        names=tuple(names),
        arms=arms,
        shares=tuple(int(count) / BUCKETS for count in counts),
        sha256=hashlib.sha256(arms).hexdigest(),
    )


def exponentials(salt: str, name: str) -> _Doubles:
    """−ln(u) of every bucket for one arm: shape (65,536,), finite, positive."""
    digest = hashlib.sha256(canonical_unit(salt) + b"\0" + canonical_unit(name)).digest()
    seed = np.uint64(int.from_bytes(digest[:8], "big"))
    words = splitmix64(np.arange(BUCKETS, dtype=np.uint64) ^ seed)
    uniforms = ((words >> np.uint64(12)).astype(np.float64) + 0.5) / 2.0**52
    return negative_log(uniforms)


def splitmix64(words: _Words) -> _Words:
    """The output function of SplitMix64 after one step from each word (Steele, Lea, Flood 2014), modulo 2⁶⁴."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def negative_log(uniforms: _Doubles) -> _Doubles:
    """−ln of numbers in (0, 1), within 4 units in the last place, and equal on every machine.

    u = m·2ᵉ with m in [√½, √2); ln m = 2·artanh(s) = 2·(s + s³/3 + s⁵/5 + …), s = (m − 1)/(m + 1), |s| < 0.172: after s²³ nothing is left.
    """
    mantissas, exponents = np.frexp(uniforms)
    low = mantissas < SQRT_HALF
    mantissas = np.where(low, mantissas * 2.0, mantissas)
    powers = exponents.astype(np.float64) - low
    s = (mantissas - 1.0) / (mantissas + 1.0)
    square = s * s
    series = np.full_like(s, 1.0 / 23.0)
    for denominator in range(21, 0, -2):
        series = series * square + 1.0 / denominator
    return -(powers * LN_2 + 2.0 * s * series)


def mirror_draw(prediction_id: bytes, mirror: str, sample: float) -> bool:
    """Whether this prediction's rows go to the mirror: first 32 bits (big-endian) of SHA-256("mirror" ∥ 0 ∥ mirror's name ∥ 0 ∥
    prediction id's 16 bytes) below round(sample · 2³²). Apart from the split, from every other mirror, and nested: who is in a smaller
    sample is in every larger one.
    """
    return mirror_drawing(mirror, sample)(prediction_id)


def mirror_drawing(mirror: str, sample: float) -> Callable[[bytes], bool]:
    """`mirror_draw` for one mirror, with all but the prediction id already hashed (0.3 us a call)."""
    named = hashlib.sha256(b"mirror\0" + canonical_unit(mirror) + b"\0")
    threshold = round(sample * 2**32)

    def is_drawn(prediction_id: bytes) -> bool:
        state = named.copy()
        state.update(prediction_id)
        return int.from_bytes(state.digest()[:4], "big") < threshold

    return is_drawn


def is_weight(weight: float) -> bool:
    """Whether this can be the weight of an arm: 0, or from 1e-9 to 1e9."""
    return weight == 0 or WEIGHT_MIN <= weight <= WEIGHT_MAX


def _check(weights: Sequence[tuple[str, float]]) -> None:
    names = {name for name, _ in weights}
    if not 1 <= len(weights) <= ARMS_MAX or len(names) != len(weights):
        raise ValueError(f"wanted 1 to {ARMS_MAX} arms of different names, got {[name for name, _ in weights]}")
    for name, weight in weights:
        if not is_weight(weight):
            raise ValueError(f"weight of arm {name!r}: wanted 0, or {WEIGHT_MIN:g} to {WEIGHT_MAX:g}, got {weight}")
    if not any(weight for _, weight in weights):
        raise ValueError("wanted at least one positive weight")

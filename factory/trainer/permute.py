"""Keyed permutations of range(n) without a table: any element in constant time and memory, many at once. Imports numpy only.

A generalised Feistel network on pairs (a, b) of a rectangle just larger than n, and cycle-walking: what falls outside is sent through again
(Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). The round function is the finaliser of SplitMix64 (Steele, Lea and
Flood, 2014). Integers only, so the same on every machine and numpy. It shuffles; it hides nothing.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROUNDS = 12

U64 = NDArray[np.uint64]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_ONE = np.uint64(0xBF58476D1CE4E5B9)
_TWO = np.uint64(0x94D049BB133111EB)
_ROUND_KEYS = [np.uint64((number + 1) * int(_STEP) % 2**64) for number in range(ROUNDS)]
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)


def key_of(*parts: object) -> int:
    """A key of 64 bits from anything with a text of its own."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "little")


def mixed(key: ArrayLike, number: ArrayLike) -> U64:
    """A word of 64 bits from a key and a number: a new key, or a seed."""
    out: U64 = _scrambled(_u64(key) + _scrambled(_u64(number) * _STEP + _STEP))
    return out


def permuted(x: ArrayLike, n: ArrayLike, key: ArrayLike) -> NDArray[np.int64]:
    """Where a keyed permutation of range(n) sends x; all three may be arrays that broadcast. 0 <= x < n < 2^52."""
    x, n, key = np.broadcast_arrays(_u64(x), _u64(n), _u64(key))
    out, todo = np.empty(x.shape, np.uint64).reshape(-1), np.arange(x.size)
    x, n, key = x.reshape(-1), n.reshape(-1), key.reshape(-1)
    while todo.size:
        x = _once(x, n, key)
        inside = x < n
        out[todo[inside]] = x[inside]
        outside = ~inside
        todo, x, n, key = todo[outside], x[outside], n[outside], key[outside]
    return out.astype(np.int64)


def _once(x: U64, n: U64, key: U64) -> U64:
    """One pass over the rectangle height × width >= n."""
    height = np.ceil(np.sqrt(n)).astype(np.uint64)
    width = (n + height - np.uint64(1)) // height
    high, low = np.divmod(x, width)
    for number in range(ROUNDS):
        round_key = key + _ROUND_KEYS[number]
        if number % 2:
            high = (high + _scrambled(round_key ^ (low * _ONE)) % height) % height
        else:
            low = (low + _scrambled(round_key ^ (high * _ONE)) % width) % width
    out: U64 = high * width + low
    return out


def _scrambled(z: U64) -> U64:
    z = (z ^ (z >> _30)) * _ONE
    z = (z ^ (z >> _27)) * _TWO
    out: U64 = z ^ (z >> _31)
    return out


def _u64(value: ArrayLike) -> U64:
    return np.atleast_1d(np.asarray(value)).astype(np.uint64)

"""How the kernels cut up their work. A GPU is filled by many small programs; under the interpreter few large ones cost
less, so tests enlarge ROWS and KEYS."""

ROWS = 1  # queries of a program
KEYS = 1  # keys of a program that sums up gradients of keys and values
HEADS = 16  # query heads of a program, at most
TILE = 32  # queries, and keys, of a tile of all pairs, at most
LIST = 32  # queries that one step of a key's list takes
SPAN = 256  # keys that one step of ranking takes
SCORES = 1 << 24  # index scores in memory at once
HEAD_DIM = 256  # the largest


def power_of_two(size: int) -> int:
    """From which on `size` fits."""
    return 1 << (size - 1).bit_length()


def power(size: int) -> int:
    """The power of two from which on `size` fits; at least 16, as matrix units want it."""
    return max(16, power_of_two(size))


def slots(dim: int) -> int:
    """Selected keys that one step takes: as many as registers have room for."""
    return max(16, min(64, 2048 // power(dim)))


def tile(dim: int) -> int:
    """Queries, and keys, of a tile of all pairs: half as many of the widest heads, or shared memory has no room."""
    return TILE if power(dim) <= 128 else TILE // 2


def warps(dim: int) -> int:
    """Warps of a program: registers of four do not hold what it has of wide heads."""
    return 8 if power(dim) >= 128 else 4

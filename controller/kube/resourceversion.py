"""Comparison of resourceVersions.

They are decimal integers that grow with every write of one resource (Kubernetes documents this since 1.35 and etcd has
always made them so). Those of different resources are never compared. Whatever is not an integer cannot be ordered; the
answer is then the one that loses no update: "newer".
"""


def parse(version: str) -> int | None:
    """The version as an integer, or None where it is not one."""
    return int(version) if version.isascii() and version.isdigit() else None


def newer(candidate: str, held: str) -> bool:
    """Whether candidate is strictly newer than held, or cannot be ordered against it and differs."""
    left, right = parse(candidate), parse(held)
    if left is None or right is None:
        return candidate != held
    return left > right


def surely_newer(candidate: str, held: str) -> bool:
    """Whether candidate is strictly newer than held beyond doubt: False where they cannot be ordered."""
    left, right = parse(candidate), parse(held)
    return left is not None and right is not None and left > right

"""Megabytes that a package and all it needs take on disk, beyond what torch by itself takes.

    python installed.py "darts[torch]"

Run by the environment's own python. Counted are the files of each package in the closure of its requirements, as this
environment has them, without compiled Python (.pyc). Packages that torch needs too are not counted.
"""

import json
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def closure(wanted: str) -> dict[str, Distribution]:
    """name -> distribution of `wanted` (with extras) and of all that it needs here."""
    found: dict[tuple[str, str], Distribution] = {}
    queue = [Requirement(wanted)]
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in found:
                continue
            try:
                found[name, extra] = distribution(name)
            except PackageNotFoundError:
                continue  # a requirement that this platform's marker lets be absent
            for line in found[name, extra].requires or []:
                needed = Requirement(line)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    queue.append(needed)
    return {name: dist for (name, _), dist in found.items()}


def size(dist: Distribution) -> int:
    """Bytes of its files; an editable install counts its package's source folder too."""
    files = {Path(str(dist.locate_file(file))) for file in dist.files or []}
    name = canonicalize_name(dist.metadata["Name"]).replace("-", "_")
    source = Path(__file__).resolve().parents[2] / "src" / name
    if source.is_dir():
        files |= set(source.rglob("*"))
    return sum(file.stat().st_size for file in files if file.is_file() and file.suffix != ".pyc")


def megabytes(wanted: str) -> dict[str, object]:
    """{"mb": beyond torch, "packages": how many, "largest": the five largest, in MB}"""
    torch = set(closure("torch"))
    sizes = {name: size(dist) / 1e6 for name, dist in closure(wanted).items() if name not in torch}
    largest = sorted(sizes, key=lambda name: -sizes[name])[:5]
    return {"mb": round(sum(sizes.values())), "packages": len(sizes), "largest": {n: round(sizes[n]) for n in largest}}


if __name__ == "__main__":
    print(json.dumps({wanted: megabytes(wanted) for wanted in sys.argv[1:]}))

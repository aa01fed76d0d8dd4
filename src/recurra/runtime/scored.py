"""The scores of a text task beside their floors: a score without its floor is not a result."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Scored:
    """rows: "model" first, then each floor -> metric, as it is shown, -> value (a row lacks what it has not). caption: what the
    scores are over, and whose definitions they follow. details: more of the model, e.g. F1 by type, JSON values. examples: of a model
    that writes, some answers with what they attended to.
    """

    rows: dict[str, dict[str, float]]
    caption: str
    details: dict[str, Any] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As JSON-able data."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "Scored":
        """What `to_json` gave."""
        return cls(found["rows"], found["caption"], found["details"], found.get("examples", []))

    @property
    def titles(self) -> list[str]:
        """The metrics that at least one row has, in order."""
        return list(dict.fromkeys(key for row in self.rows.values() for key in row))

    def cells(self, name: str) -> list[str]:
        """A row as text."""
        row = self.rows[name]
        return [f"{row[key]:.4g}" if key in row else "-" for key in self.titles]

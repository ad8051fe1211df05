"""Which objects of a resource are meant."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ListOptions:
    """What to list, or to watch: everything, unless it says less."""

    namespace: str = ""
    """Empty for all namespaces."""
    label_selector: str = ""
    """As in kubectl; empty for all."""
    field_selector: str = ""
    """As in kubectl; empty for all."""

    def selectors(self) -> dict[str, str]:
        """Query parameters for the selectors that are not empty."""
        chosen = {"labelSelector": self.label_selector, "fieldSelector": self.field_selector}
        return {name: value for name, value in chosen.items() if value}

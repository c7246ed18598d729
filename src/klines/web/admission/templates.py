"""The templates of the service's addresses: which of them an address has, without asking the router."""

from __future__ import annotations

from collections.abc import Iterable

MAX_PARTS = 16


class Templates:
    """Found by the number of an address's parts, those without parameters first; a parameter is one part."""

    def __init__(self, templates: Iterable[str]) -> None:
        self._plain: dict[tuple[str, ...], str] = {}
        self._others: dict[int, list[tuple[tuple[str | None, ...], str]]] = {}
        for template in sorted(templates):
            parts = _parts(template)
            if "{" in template:
                wanted = tuple(None if part.startswith("{") else part for part in parts)
                self._others.setdefault(len(parts), []).append((wanted, template))
            else:
                self._plain[parts] = template

    def of(self, path: str) -> str | None:
        """The template of an address; None: it has none."""
        parts = _parts(path)
        if found := self._plain.get(parts):
            return found
        for wanted, template in self._others.get(len(parts), ()):
            if all(part is None or part == given for part, given in zip(wanted, parts, strict=True)):
                return template
        return None


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/", MAX_PARTS) if part)

"""What an HTML page holds, as a parser sees it."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "img", "input", "br", "link", "hr"}


class Page(HTMLParser):
    """Raises AssertionError when a tag is closed that is not open."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] not in (["script"], ["style"]):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    def check_sources(self) -> list[str]:
        """Addresses of all that the page loads: each is a file beside it, and none of the tags that load by other ways is there."""
        loaded = [str(attrs["src"]) for _, attrs in self.tags if "src" in attrs]
        assert all((self.path.parent / address).is_file() and ":" not in address for address in loaded)
        assert not any(tag in ("link", "iframe", "object", "embed", "base", "form") for tag, _ in self.tags)
        source = self.path.read_text(encoding="utf-8")
        assert not any(word in source for word in ("http:", "https:", "//cdn", "@import", "fetch(", "XMLHttpRequest", "import("))
        return loaded

"""What a page or fragment must be like, checked with the standard library's parser and none of the library's code."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
FORBIDDEN = {"script", "iframe", "object", "embed", "form", "base", "img", "video", "audio", "foreignobject", "use"}
LINKS = {"href", "src", "srcset", "action", "data", "poster", "xlink:href", "formaction", "background"}


class Page(HTMLParser):
    """Read a text as HTML, and keep what the checks below ask about."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.problems: list[str] = []
        self.stack: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.headings: list[int] = []
        self.cells: list[tuple[str, str]] = []
        self.styles: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        self.problems += [f"<{tag}> is never closed" for tag in self.stack]
        self.problems += [f"id {i!r} appears twice" for i in {i for i in self.ids if self.ids.count(i) > 1}]
        self.problems += [f"nothing has the id {r!r}" for r in self.references if r not in self.ids]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        if len(set(names)) != len(names):
            self.problems.append(f"<{tag}> repeats an attribute")
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag in FORBIDDEN:
            self.problems.append(f"<{tag}> is there")
        for name, value in attrs:
            if name.startswith("on"):
                self.problems.append(f"<{tag}> has the handler {name}")
            if name in LINKS and not re.match(r"#|data:,$", value or ""):
                self.problems.append(f"<{tag}> points at {value!r}")
            if name == "style" and "url(" in (value or ""):
                self.problems.append(f"<{tag}> has a style that loads something")
            if not re.fullmatch(r"[a-zA-Z:_-][\w:.-]*", name):
                self.problems.append(f"<{tag}> has the attribute {name!r}")
        if attributes.get("id"):
            self.ids.append(attributes["id"] or "")
        if (attributes.get("href") or "").startswith("#"):
            self.references.append((attributes["href"] or "")[1:])
        self.references += (attributes.get("aria-labelledby") or "").split()
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag in {"td", "th"}:
            self.cells.append((tag, ""))
            if tag == "th" and attributes.get("scope") not in {"row", "col"}:
                self.problems.append("a <th> has no scope")
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.stack or self.stack[-1] != tag:
            self.problems.append(f"</{tag}> ends {self.stack[-1:] or 'nothing'}")
        else:
            self.stack.pop()

    def handle_data(self, data: str) -> None:
        if "style" in self.stack:
            self.styles.append(data)
            return
        self.texts.append(data)
        if self.cells and ("td" in self.stack or "th" in self.stack):
            tag, text = self.cells[-1]
            self.cells[-1] = (tag, text + data)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def problems(text: str) -> list[str]:
    """Everything that is wrong with a page or a fragment of ours; empty if it is sound."""
    page = Page(text)
    found = list(page.problems)
    loads = re.compile(r"url\(|@import|@font-face|expression|</")
    found += ["the style sheet loads something" for style in page.styles if loads.search(style)]
    steps = zip([page.headings[0] - 1, *page.headings] if page.headings else [], page.headings, strict=False)
    found += [
        f"a heading of level {after} follows one of level {before}" for before, after in steps if after > before + 1
    ]
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ud800-\udfff]", text):
        found.append("a control or direction character is left")
    return found


def rules(sheet: str) -> list[tuple[str, dict[str, str]]]:
    """Selectors and declarations of a style sheet, those inside @media included; other at-rules are left out."""
    found = []
    for match in re.finditer(r"([^{}]+)\{([^{}]*)\}", sheet):
        selector = match.group(1).strip()
        if not selector.startswith("@"):
            pairs = [part.partition(":") for part in match.group(2).split(";") if part.strip()]
            found.append((selector, {name.strip(): value.strip() for name, _, value in pairs}))
    return found


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours like #1b1f24, after WCAG 2.2 (relative luminance)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)

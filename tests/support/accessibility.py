"""Checks of a page in a browser: contrast of every text, and names of everything that can have the focus."""

from __future__ import annotations

from tests.support.devtools import Tab

CONTRAST = """(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = colour => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const over = (top, below) => [0, 1, 2].map(i => (top[i] * top[3] + below[i] * (255 - top[3])) / 255).concat(255);
  const ground = node => {
    if (!node) return rgba("Canvas");
    const own = rgba(getComputedStyle(node).backgroundColor);
    return own[3] === 255 ? own : over(own, ground(node.parentElement));
  };
  const light = colour => {
    const linear = value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = colour.slice(0, 3).map(value => linear(value / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
  const silent = ["SCRIPT", "STYLE", "OPTION", "title"];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) {
    const parent = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
    if (!text || !parent.checkVisibility() || silent.includes(parent.tagName)) continue;
    const style = getComputedStyle(parent), behind = ground(parent);
    const ink = rgba(parent.namespaceURI.endsWith("svg") ? style.fill : style.color);
    found.push([ratio(over(ink, behind), behind), text]);
  }
  for (const control of document.querySelectorAll("button, select, textarea")) {
    const style = getComputedStyle(control), around = ground(control.parentElement), edge = rgba(style.borderTopColor);
    if (!control.checkVisibility() || parseFloat(style.borderTopWidth) === 0 || edge[3] === 0) continue;
    found.push([ratio(over(edge, around), around) * 1.5, "the border of " + (control.id || control.textContent)]);
  }
  return found;
})()"""
"""Pairs of contrast and text. A border needs 3 where a text needs 4.5, so its contrast is multiplied by 1.5."""


def contrasts(tab: Tab) -> dict[str, float]:
    """The contrast (WCAG 2) of every visible text with its background."""
    found: dict[str, float] = {}
    for ratio, text in tab.run(CONTRAST):
        found[text] = min(ratio, found.get(text, ratio))
    return found


def unnamed(tab: Tab) -> list[str]:
    """The roles of nodes that a keyboard or a screen reader reaches but that have no name."""
    need_names = {
        "button",
        "link",
        "combobox",
        "textbox",
        "region",
        "img",
        "image",
        "form",
        "columnheader",
        "rowheader",
    }
    return [node.role for node in tab.announced() if node.role in need_names and not node.name.strip()]


def focus_order(tab: Tab, count: int) -> list[str]:
    """What the first `count` presses of the tab key focus: an id, or else the text."""
    tab.run("document.activeElement.blur()")
    found = []
    for _ in range(count):
        tab.press("Tab")
        found.append(tab.run("(e => e.id || e.getAttribute('aria-label') || e.textContent)(document.activeElement)"))
    return found


def assert_accessible(tab: Tab, width: int, sources: tuple[str, ...]) -> None:
    """No element is wider than the window; every text has contrast, every control a name; only `sources` are loaded.

    `sources` are the beginnings of addresses.
    """
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert {text: ratio for text, ratio in contrasts(tab).items() if ratio < 4.5} == {}
    assert unnamed(tab) == []
    assert tab.errors == []
    assert tab.rests()
    assert [address for address in tab.requests if not address.startswith(sources)] == []


def assert_table_says_that_it_scrolls(tab: Tab, width: int) -> None:
    """A table that is wider than its frame has a hint, as it always is on a phone."""
    scrolls = tab.run("(e => e.scrollWidth > e.clientWidth + 1)(document.querySelector('.scroll'))")
    assert bool(tab.texts(".more")) == scrolls
    assert scrolls or width > 390

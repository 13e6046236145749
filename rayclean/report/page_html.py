"""The pages as HTML, one file at a time: the overview, the worst samples, one page per class, the duplicates.

Every text is escaped by jinja2; the pages name no file outside their folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from rayclean.report.page_facts import KINDS, Report, Sample

INDEX = "index.html"
FILES = ("report.css", "report.js")


def render(report: Report) -> Iterator[tuple[str, bytes]]:
    """All pages but the overview, then the overview, so that it is there only where all else is.

    Yields:
        The file's path below the report's folder, and its content.
    """
    loader = PackageLoader("rayclean.report")
    pages = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def page(template: str, here: str, root: str = "", **more: Any) -> bytes:
        context = {"report": report, "kinds": KINDS, "pairs": pairs, "here": here, "root": root}
        return pages.get_template(template).render(**context, **more).encode()

    def pairs(labels: list[int]) -> list[tuple[int, str]]:
        return [(label, report.classes.name(label)) for label in labels]

    for name in FILES:
        yield name, loader.get_source(pages, name)[0].encode()
    yield from _class_pages(report, page)
    for template, name in (("samples.html.j2", "samples.html"), ("duplicates.html.j2", "duplicates.html")):
        yield name, page(template, name)
    yield INDEX, page("index.html.j2", INDEX)


def _class_pages(report: Report, page: Callable[..., bytes]) -> Iterator[tuple[str, bytes]]:
    """A page for each class that has samples here, with links to the ones beside it."""
    samples: dict[int, list[Sample]] = {}
    for sample in report.samples:
        samples.setdefault(sample.given, []).append(sample)
    lines = sorted((line for line in report.class_lines if line.shown), key=lambda line: line.label)
    for before, line, after in zip([None, *lines], lines, [*lines[1:], None], strict=False):
        more = {"line": line, "before": before, "after": after, "samples": samples[line.label]}
        yield f"classes/{line.page}", page("class.html.j2", line.page, "../", **more)


def lowest_first(samples: Iterable[Sample]) -> list[Sample]:
    """Samples by `label_score`, of equals the first row first."""
    return sorted(samples, key=lambda sample: (sample.label_score, sample.row))

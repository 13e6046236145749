"""`rayclean convert`: a layout lists its samples, then they are written as shards."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping

from rich.console import Console

from rayclean.convert.layouts import LAYOUTS, Given
from rayclean.convert.samples import Found, Options, Source
from rayclean.convert.write import Written, write


def convert(
    layout: str, source: Source, given: Mapping[str, Given], options: Options, console: Console
) -> Iterator[Written]:
    """Writes a data set as WebDataset shards; the same command goes on with what was stopped.

    Args:
        layout: a name in `rayclean.convert.layouts.LAYOUTS`.
        source: where the data set lies, and where the shards go.
        given: values of the layout's own options.
        options: of all layouts.
        console: where progress is shown.

    Yields:
        Each split, once all of its shards are there.

    Raises:
        ConfigError: no such layout, an option's value, an output that cannot be written or is another conversion's.
        InputError: the data set cannot be read, or is not as its layout says.
        RaycleanError: a shard could not be written; the same command goes on.
    """
    kind = LAYOUTS.get(layout)
    found: Found = kind.load()(source, **kind.values(given))
    yield from write(found, source.out, options, console)
    if found.scratch:
        shutil.rmtree(found.scratch, ignore_errors=True)

"""What a run on features asks of an object store: requests and bytes, by what is read and written.

    .venv/bin/python tools/bench/feature_requests.py /elsewhere --rows 100000

Shards hold a label and features per sample (`npy`, float16; the made ones of tools/bench/features.py); shards and run
lie in a bucket of an object store on loopback (tools/faults/object_store.py), which holds all in memory. The same run
is then started once more, finished as it is.
"""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import fsspec
import numpy as np
import yaml

from rayclean.shards.write import write_shards
from rayclean.storage.store import Store
from tools.bench.features import FILE_ROWS, SHARD_ROWS, Made
from tools.bench.scaling import watch
from tools.faults.serving import ObjectStore, serving


def samples(made: Made, num_rows: int) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Keys and members."""
    for index, start in enumerate(range(0, num_rows, FILE_ROWS)):
        features, labels, truth = made.block(index, min(FILE_ROWS, num_rows - start))
        for row, (label, true) in enumerate(zip(labels.tolist(), truth.tolist(), strict=True)):
            content = io.BytesIO()
            np.save(content, features[row])
            yield f"{start + row:09d}", {"cls": b"%d" % label, "truth": b"%d" % true, "npy": content.getvalue()}


def table(title: str, store: ObjectStore) -> list[str]:
    """Markdown of what was asked since the last call."""
    found: dict[str, dict[str, list[int]]] = {}
    for place, by_method in store.places().items():
        name = re.sub(r"-[0-9a-f]{8}$", "", place)
        for method, count in by_method.items():
            into = found.setdefault(name, {}).setdefault(method, [0, 0])
            into[0] += count["requests"]
            into[1] += count["received_bytes"] + count["sent_bytes"]
    methods = ("GET", "HEAD", "PUT", "DELETE", "POST")
    lines = [f"| {title} | " + " | ".join(f"{each}, MB" for each in methods) + " |", "|---" + "|--:" * 5 + "|"]
    totals = {each: [sum(of.get(each, [0, 0])[i] for of in found.values()) for i in (0, 1)] for each in methods}
    for name, of in [*sorted(found.items()), ("all", totals)]:
        cells = [f"{of[each][0]:,}, {of[each][1] / 1e6:,.1f}" if each in of else "" for each in methods]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the shards are made")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--dim", type=int, default=768)
    options = parser.parse_args(arguments)
    shards = options.folder / f"members-{options.rows}-{options.classes}-{options.dim}"
    if not (shards / "made").exists():
        made = Made(options.classes, options.dim, 0)
        write_shards(str(shards), "made", samples(made, options.rows), SHARD_ROWS)
        (shards / "made").touch()
    with serving() as store:
        files = fsspec.filesystem("s3")
        sizes = [path.stat().st_size for path in sorted(shards.glob("*.tar"))]
        for path in sorted(shards.glob("*.tar")):
            files.put(str(path), f"{store.bucket}/shards/{path.name}")
        run = f"{store.bucket}/run"
        data = {"shards": f"{store.bucket}/shards/*.tar", "features": "npy", "image": "none", "truth": "truth"}
        config = {"run": {"dir": run}, "data": {**data, "classes": options.classes}}
        (options.folder / "config.yaml").write_text(yaml.safe_dump(config))
        store.places()
        lines = [f"{len(sizes)} shards, {sum(sizes) / 1e6:,.1f} MB", ""]
        for title in ("a run", "the same once more"):
            size = watch([str(options.folder / "config.yaml")], options.rows, Store(run))
            lines += [*table(title, store), "", f"{size.wall_s:.0f} s", ""]
    print("\n".join(lines))


if __name__ == "__main__":
    main()

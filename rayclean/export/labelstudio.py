"""Doubtful rows as tasks of Label Studio: `tasks.json` with predictions, `config.xml`, and the pictures.

Pictures are files below `images/`, named by URLs of Label Studio's own file server; data URIs would make one JSON
file of them all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from rayclean.export.files import publish_file
from rayclean.export.views import View, find_doubtful, made_of, show
from rayclean.export.work import Made, Work
from rayclean.schema import drop_word

TASKS, CONFIG, PICTURES = "tasks.json", "config.xml", "images"
CHOICE, IMAGE = "label", "image"
SERVER = "/data/local-files/?d="  # below LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT, which is the output folder


def make_labelstudio(work: Work) -> Made:
    """`labelstudio`: doubtful rows as tasks."""
    found = find_doubtful(work.chosen, work.options.view_rows)
    shown = show(work, found, PICTURES, lambda view: task(view, work.names, work.chosen.table.merge))
    files = [
        publish_file(work.out, TASKS, tasks_file(shown.entries)),
        publish_file(work.out, CONFIG, labeling_config(work.names)),
    ]
    made = made_of(work, found, files, PICTURES, shown)
    made.notes.append(
        "Start Label Studio with `LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true` and "
        "`LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT` set to this folder, make a project with `config.xml` as its labeling "
        "interface, add a source storage `Local files` with the absolute path of `images/` (without syncing it), then "
        "import `tasks.json`. Tasks sorted by the prediction's score begin with the least sure. Export the project as "
        "CSV; `rayclean run CONFIG merge.verified=FILE.csv` takes in what people decided."
    )
    return made


def task(view: View, names: Sequence[str], merge: str) -> dict[str, Any]:
    """A task: the picture, what is known of it, and the prediction.

    Args:
        view: the row.
        names: of the classes, by label.
        merge: what tells versions of the predictions apart.
    """
    line = view.line
    result = {
        "id": f"row-{line['row']}",
        "type": "choices",
        "from_name": CHOICE,
        "to_name": IMAGE,
        "value": {"choices": [choices(names)[line["predicted_label"]]]},
    }
    return {
        "data": {
            "image": f"{SERVER}{quote(f'{PICTURES}/{view.file}')}",
            "given_label": names[line["given_label"]],
            "label_score": line["label_score"],
            **{name: line[name] for name in ("row", "shard", "key", "issue_kind")},
        },
        "predictions": [
            {"model_version": f"rayclean-{merge}", "score": line["predicted_score"], "result": [result]},
        ],
    }


def choices(names: Sequence[str]) -> list[str]:
    """The classes by label, and last what `merge.verified` reads as none of them."""
    return [*names, drop_word(names)]


def tasks_file(tasks: Iterable[dict[str, Any]]) -> bytes:
    """`tasks.json`."""
    return (json.dumps(list(tasks), indent=1) + "\n").encode()


def labeling_config(names: Sequence[str]) -> bytes:
    """`config.xml`: one choice among the classes and none of them, beside the picture and its given label."""
    lines = "".join(f"    <Choice value={quoteattr(name)}/>\n" for name in choices(names))
    return (
        "<View>\n"
        '  <Header value="Given label:"/>\n'
        '  <Header value="$given_label"/>\n'
        f'  <Image name="{IMAGE}" value="$image"/>\n'
        f'  <Choices name="{CHOICE}" toName="{IMAGE}" choice="single" showInline="true">\n'
        f"{lines}"
        "  </Choices>\n"
        "</View>\n"
    ).encode()

"""The kinds of export: what `rayclean export --to` may name.

To add one, write its function in a file of its own and an entry here; from outside the package, register the entry
(docs/adding.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from rayclean.config.registry import Entry, Registry
from rayclean.errors import ConfigError
from rayclean.export.options import MAX_VIEW_ROWS, ExportOptions


@dataclass(frozen=True)
class ExportKind(Entry):
    """A form in which the result of a run is handed on.

    Attributes:
        function: from `rayclean.export.work.Work` to `Made`: writes the files, and says which. The same command goes
            on where it was stopped, so equal work gives equal bytes.
        needs_images: whether samples without images cannot be written so.
        has_limit: whether it is of some rows that people look at, so many as `--limit` says.
        version: raised when the same export gets other files, so that a folder of before is not gone on with.
    """

    has_limit: bool = False
    needs_images: bool = False
    version: int = 1

    def check(self, options: ExportOptions, has_images: bool = True) -> None:
        """Refuses options that do not go with it, and samples without images where it is made of these.

        Raises:
            ConfigError: so it is; a limit that it does not have, or too large a one.
        """
        if self.needs_images and not has_images:
            others = ", ".join(kind.name for kind in EXPORT_KINDS if not kind.needs_images)
            raise ConfigError(f"--to {self.name} shows pictures, but data.image is none; choose one of {others}")
        if options.limit is not None and not self.has_limit:
            limited = " and ".join(kind.name for kind in EXPORT_KINDS if kind.has_limit)
            raise ConfigError(f"--limit is for --to {limited}; for {self.name} choose by --cut or --budget")
        if options.limit is not None and options.limit > MAX_VIEW_ROWS:
            raise ConfigError(f"--limit {options.limit}: at most {MAX_VIEW_ROWS} rows are exported with their pictures")


EXPORT_KINDS = Registry(
    "--to",
    "export",
    (
        ExportKind("csv", "a list of all rows: which stay, with which labels", "rayclean.export.lists:make_csv"),
        ExportKind("parquet", "the same list as Parquet", "rayclean.export.lists:make_parquet"),
        ExportKind("cleanlab", "a list and beliefs as cleanlab takes them", "rayclean.export.cleanlab:make_cleanlab"),
        ExportKind("shards", "new WebDataset shards of the rows that stay", "rayclean.export.shards:make_shards"),
        ExportKind(
            "datacomp", "uids of the rows that stay, for its resharder", "rayclean.export.datacomp:make_datacomp"
        ),
        ExportKind(
            "fiftyone",
            "the most doubtful rows to look at",
            "rayclean.export.fiftyone:make_fiftyone",
            version=2,
            has_limit=True,
            needs_images=True,
        ),
        ExportKind(
            "labelstudio",
            "the most doubtful rows as tasks for people",
            "rayclean.export.labelstudio:make_labelstudio",
            version=2,
            has_limit=True,
            needs_images=True,
        ),
    ),
)

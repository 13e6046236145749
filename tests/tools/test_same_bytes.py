"""What two tables differ in is found to the bit; tables of a commit are made once, those of the working tree anew."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tools.bench.same_bytes import main
from tools.bench.same_bytes_cases import CASES, EVERY_SCORE
from tools.bench.same_bytes_compare import compare

NAN, OTHER_NAN = (pa.array([bits], pa.int32()).view(pa.float32())[0].as_py() for bits in (0x7FC00000, 0x7FC00001))
MARKS = ("0a1b2c3d", "4e5f6071")


def rows_of(scores: Sequence[float | None]) -> pa.Table:
    """A table of rows with a text, a category, a list and a score."""
    count = len(scores)
    columns = {
        "key": pa.array([f"{row:03d}" for row in range(count)]),
        "shard": pa.array(["a.tar"] * count).dictionary_encode(),
        "score_loss": pa.array(scores, pa.float32()),
        "neighbor_rows": pa.array([[1, 2]] * count, pa.list_(pa.int64())),
        "transition": pa.array([[0.25, 0.75]] * count, pa.list_(pa.float64())),
    }
    fields = [pa.field(name, array.type, metadata={"meaning": name}) for name, array in columns.items()]
    return pa.table(list(columns.values()), schema=pa.schema(fields))


def write(folder: Path, start: int, table: pa.Table, **facts: Any) -> Path:
    """A published table as a start with this number leaves it: names, stamps and seconds are its own."""
    mark = MARKS[start % 2]
    summary: Mapping[str, Any] = {"rows": table.num_rows, "wall_s": float(start), "noise_rate": 0.25, **facts}
    manifest = {"merge": f"merge-{mark}", "lease": start, "classes": ["zero", "one"], "files": [mark]}
    for name in ("labels", "tables"):
        (folder / name).mkdir(parents=True)
    stamps = {"rayclean.environment": f"threads {start}", "rayclean_xxh3": f"{start:016x}"}
    stamped = table.replace_schema_metadata({**(table.schema.metadata or {}), **stamps})
    pq.write_table(stamped, folder / f"labels/part-{mark}-00000.parquet")
    (folder / "tables/_manifest.json").write_text(json.dumps(manifest))
    (folder / f"tables/summary-{mark}.json").write_text(json.dumps({**summary, "rayclean_xxh3": mark}))
    return folder


def differences(tmp_path: Path, a: pa.Table, b: pa.Table, **facts: Any) -> list[str]:
    found = compare(write(tmp_path / "a", 0, a), write(tmp_path / "b", 1, b, **facts))
    return list(found.differences)


def test_what_names_a_start_is_no_difference(tmp_path: Path) -> None:
    table = rows_of([0.5, NAN, None])
    found = compare(write(tmp_path / "a", 0, table), write(tmp_path / "b", 1, table))
    assert (found.files, found.same_files, found.differences) == (3, 0, ())
    again = compare(tmp_path / "a", write(tmp_path / "c", 0, table))
    assert (again.files, again.same_files, again.differences) == (3, 3, ())


@pytest.mark.parametrize(
    ("a", "b", "shown"),
    [
        (0.5, 0.75, "0.5 and 0.75"),
        (0.5, None, "0.5 and None"),
        (None, NAN, "None and nan (bits 0x7fc00000)"),
        (0.0, -0.0, "0.0 (bits 0x0) and -0.0 (bits -0x80000000)"),
        (NAN, OTHER_NAN, "nan (bits 0x7fc00000) and nan (bits 0x7fc00001)"),
    ],
)
def test_a_value_that_differs_is_shown_with_its_key(
    a: float | None, b: float | None, shown: str, tmp_path: Path
) -> None:
    found = differences(tmp_path, rows_of([1.0, a, 2.0, a]), rows_of([1.0, b, 2.0, b]))
    assert found == [f"labels/part-00000.parquet: score_loss differs in 2 of 4 rows, first at '001': {shown}"]


@pytest.mark.parametrize(
    ("column", "other"),
    [
        ("neighbor_rows", pa.array([[1, 3]], pa.list_(pa.int64()))),
        ("transition", pa.array([[-0.0, 1.0]], pa.list_(pa.float64()))),
        ("shard", pa.array(["b.tar"]).dictionary_encode()),
        ("key", pa.array(["0"])),
    ],
)
def test_columns_of_every_type_are_compared(column: str, other: pa.Array, tmp_path: Path) -> None:
    table = rows_of([0.5])
    place = table.schema.get_field_index(column)
    (line,) = differences(tmp_path, table, table.set_column(place, table.schema.field(column), other))
    assert line.startswith(f"labels/part-00000.parquet: {column} differs in 1 of 1 rows, first at '000': ")


def test_the_shape_of_the_table_is_compared(tmp_path: Path) -> None:
    table = rows_of([0.5])
    for name, other, said in (
        ("column", table.drop_columns(["shard"]), "column shard only in the first table"),
        ("order", table.select(table.column_names[::-1]), "the columns have another order"),
        ("rows", pa.concat_tables([table, table]), "1 and 2 rows"),
        ("metadata", table.replace_schema_metadata({"note": "x"}), "metadata {} and {b'note': b'x'}"),
        (
            "type",
            table.set_column(2, "score_loss", table["score_loss"].cast(pa.float64())),
            "score_loss is float {b'meaning': b'score_loss'} and double {}",
        ),
    ):
        assert differences(tmp_path / name, table, other)[0] == f"labels/part-00000.parquet: {said}"


def test_facts_and_files_are_compared(tmp_path: Path) -> None:
    table = rows_of([0.5])
    found = differences(tmp_path / "facts", table, table, noise_rate=0.5, verified=None)
    assert found == [
        "tables/summary.json: noise_rate is 0.25 and 0.5",
        "tables/summary.json: verified is nothing and null",
    ]
    a, b = (write(tmp_path / name, 0, table) for name in ("a", "b"))
    (a / "tables/clips-0a1b2c3d-00000.parquet").write_bytes(b"")
    assert compare(a, b).differences == ("tables/clips-00000.parquet: only in the first table",)
    with pytest.raises(FileNotFoundError, match="holds no table"):
        compare(a, tmp_path)


def test_every_score_is_every_score() -> None:
    from rayclean.schema import SCORES

    assert set(EVERY_SCORE) == {name for name, score in SCORES.items() if not score.on_features}


def test_the_configs_are_whole(tmp_path: Path) -> None:
    from rayclean.config import parse_config

    for case in CASES.values():
        tree = case.config(tmp_path, None if case.trains else tmp_path / "weights.safetensors")
        config = parse_config({"run": {"dir": str(tmp_path)}, **tree})
        assert (config.train.epochs > 0) == case.trains


# A package with another layout than ours, whose command makes a table of a constant and of its config.
FAKE = """
import json, pathlib, sys
import pyarrow as pa, pyarrow.parquet as pq, yaml

CONSTANT = 1.0

def start():
    command, config, *rest = sys.argv[1:]
    tree = yaml.safe_load(pathlib.Path(config).read_text())
    run = pathlib.Path(tree["run"]["dir"])
    if rest[:1] == ["--until"]:
        weights = run / "train-main-0/snapshots/epoch-0006.safetensors"
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"weights")
        return
    if "fail=yes" in rest:
        sys.exit("nothing works")
    assert pathlib.Path(tree["train"]["from"]).read_bytes() == b"weights"
    for name in ("labels", "tables"):
        (run / name).mkdir(parents=True)
    table = pa.table({"key": ["a"], "score_loss": [CONSTANT + len(rest)]})
    pq.write_table(table, run / "labels/part-00000000-00000.parquet")
    (run / "tables/_manifest.json").write_text("{}")
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits, the second with another constant, and a working tree with the first one's."""
    root = tmp_path / "repository"
    (root / "other").mkdir(parents=True)
    (root / "pyproject.toml").write_text('[project]\nscripts = {rayclean = "other.begin:start"}\n')

    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True)

    git("init", "--quiet")
    for number, constant in enumerate(("1.0", "2.0")):
        (root / "other/begin.py").write_text(FAKE.replace("CONSTANT = 1.0", f"CONSTANT = {constant}"))
        git("add", ".")
        git("commit", "--quiet", "-m", constant)
        git("tag", f"v{number}")
    (root / "other/begin.py").write_text(FAKE)
    return root


def test_revisions_are_run_and_compared(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = repository.parent / "kept"

    def result(*arguments: str) -> tuple[int, str, str]:
        code = main([*arguments, "--cases", "step", f"--folder={folder}", f"--repository={repository}"])
        said = capfd.readouterr()
        return code, said.out, said.err

    code, out, err = result("v0", "v1")
    assert (code, err.count("a table with v")) == (1, 2)
    assert out.splitlines()[1].endswith("score_loss differs in 1 of 1 rows, first at 'a': 1.0 and 2.0")
    code, out, err = result("v0", ".")
    assert (code, out) == (0, "step: equal (2 files, all bytes of 2)\n")
    assert "with v0" not in err  # it was kept
    assert "a table with . in" in err
    (repository / "other/begin.py").write_text(FAKE.replace("CONSTANT = 1.0", "CONSTANT = 3.0"))
    assert result("v0", ".")[0] == 1  # the working tree's is never kept
    code, out, _ = result("v0", "v0", "--set", "a.b=c", "--executor", "inline")
    assert code == 1
    assert "1.0 and 3.0" in out  # two overrides, for the second revision alone
    code, out, _ = result("v0", "v1", "--set", "fail=yes")
    assert code == 2
    assert "v1 ended with exit code 1:\n  nothing works" in out
    with pytest.raises(SystemExit, match="has no revision v7"):
        result("v0", "v7")
    left = subprocess.run(["git", "-C", str(repository), "worktree", "list"], capture_output=True, text=True)
    assert len(left.stdout.splitlines()) == 1

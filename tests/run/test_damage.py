"""No damaged file of a run changes its table: it is made again, or the run says which file and ends."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rayclean.cli import commands
from rayclean.config import Config
from rayclean.errors import DamagedFile, StageError
from rayclean.run.run import Run
from rayclean.storage import checksums
from rayclean.storage.damage import ASIDE, MAX_TRIES, DamageFound, mended
from rayclean.storage.published import Published
from rayclean.storage.store import Store
from tests.damage import DAMAGES, copy_until_read, damage, kinds
from tests.inspect.test_garbage import EVERYTHING, save_config

# One network of all families, IVF lists, verified rows, noise.
SETTINGS = (
    *EVERYTHING,
    "neighbors.ivf_rows=1",
    "neighbors.recall_target=1",
    "inn.features=self",
    "train.roles={}",
    "scores=[loss, aum, iofm, inn, vote, osm, osd, odd]",
)
# Kinds of one folder that what is left to do reads for sure, so that their damage is met. Of others, such as the
# catalogs, there are several, of which a run that goes on may need none.
READ = ("merge-H/model.json", "influence-H/solved.safetensors", "simulate-H/simulated.safetensors")
COMMANDS = ("status", "errors", "show", "evaluate", "report", "export", "gc")


@pytest.fixture(scope="module")
def whole(
    tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run. Only to be read."""
    folder = tmp_path_factory.mktemp("damage") / "run"
    save_config(finish(tiny_config(folder, *SETTINGS)))
    (folder / "given.yaml").unlink()
    return folder


@pytest.fixture
def again(
    whole: Path, tiny_config: Callable[..., Config], finish: Callable[..., Run], tmp_path: Path
) -> Callable[[str, str], str]:
    """Damages a file of a kind, does what reads it, and says what became of the table."""
    expected = table(whole)

    def outcome(kind: str, how: str) -> str:
        copy = tmp_path / "run"
        shutil.rmtree(copy, ignore_errors=True)
        copy_until_read(whole, kind, copy)
        original = kinds(whole)[kind][-1]
        path = copy / original.relative_to(whole)
        damage(path, how)
        try:
            finish(tiny_config(copy, *SETTINGS))
        except DamagedFile as e:
            return f"said: {e}"
        if table(copy) != expected:
            return "another"
        is_healed = path.exists() and path.read_bytes() == original.read_bytes()
        return "the same" if is_healed or kind not in READ else "believed"

    return outcome


def table(run: Path) -> dict[str, bytes]:
    """The published table."""
    return {file.path: (run / file.path).read_bytes() for file in Published.open(Store(str(run))).files}


def cases(run: Path, part: int, parts: int) -> list[tuple[str, str]]:
    """Kinds with what happens to them; of some parts, one, in which all kinds and all damages come up in turn."""
    found = [(kind, how) for kind in kinds(run) for how in DAMAGES]
    return [case for index, case in enumerate(found) if (index + index // len(DAMAGES)) % parts == part]


@pytest.mark.parametrize(
    ("part", "parts"), [(0, 16), *(pytest.param(part, 16, marks=pytest.mark.slow) for part in range(1, 16))]
)
def test_the_table_is_the_unbroken_runs(part: int, parts: int, whole: Path, again: Callable[[str, str], str]) -> None:
    tried = cases(whole, part, parts)
    assert len(tried) > 10
    assert {case: outcome for case in tried if (outcome := again(*case)) != "the same"} == {}


def test_a_file_that_many_jobs_meet_at_once_is_set_aside_once(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    met: list[int] = []

    def work() -> str:
        if not met:
            met.append(1)
            store.publish("embed-1/000002.safetensors", b"damaged")
            raise DamageFound([DamagedFile(store.full("embed-1/000002.safetensors"), "it is") for _ in range(5)])
        return "healed"

    assert mended(store, work) == "healed"
    assert store.list("embed-1") == [f"000002.safetensors{ASIDE}"]


def test_without_checksums_damage_would_be_believed(
    again: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the tests above would find: another table, or arithmetic that fails."""
    monkeypatch.setattr(checksums.CheckedArrays, "_check", lambda *_: None)
    try:
        outcome = again("interpolate-H/N.safetensors", "turned")
    except StageError as e:
        outcome = str(e)
    assert outcome != "the same"


def test_a_file_that_does_not_get_better_is_an_error(tmp_path: Path) -> None:
    store, tries = Store(str(tmp_path)), []

    def work() -> None:
        tries.append(1)
        store.publish("embed-00/000000.safetensors", b"-")
        raise DamagedFile(store.full("embed-00/000000.safetensors"), "its checksum is another one")

    with pytest.raises(DamagedFile, match="embed-00/000000"):
        mended(store, work)
    assert len(tries) == MAX_TRIES + 1
    elsewhere = DamagedFile("/another/run/snapshots/epoch-0001.safetensors", "it is empty")
    with pytest.raises(DamagedFile, match="/another/run"):
        mended(store, lambda: (_ for _ in ()).throw(elsewhere))


def call(command: str, run: Path, out: Path) -> int:
    """The exit code of a command that looks at a run, in this process."""
    more = {"show": ["k03"], "report": ["--out", str(out)], "export": ["--to", "csv", "--out", str(out)]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["rayclean", command, str(run), *more.get(command, [])])
        return commands.call()


@pytest.mark.parametrize(
    ("part", "parts"), [(0, 40), *(pytest.param(part, 8, marks=pytest.mark.slow) for part in range(1, 8))]
)
def test_commands_that_look_say_a_line_and_no_traceback(
    part: int, parts: int, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = set()
    for kind, how in cases(whole, part, parts):
        copy = tmp_path / "run"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(whole, copy)
        path = copy / kinds(whole)[kind][-1].relative_to(whole)
        damage(path, how)
        for command in COMMANDS:
            shutil.rmtree(tmp_path / "out", ignore_errors=True)
            code = call(command, copy, tmp_path / "out")  # an exception that is no line would come up here
            said = capsys.readouterr()
            assert code == 0 or said.err.startswith("rayclean: "), (kind, how, command, said.err)
            codes.add(code)
    assert codes <= {0, 1, 2}

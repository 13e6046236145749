"""YAML as a config may hold it: small, nothing twice, no node that holds itself, and the line of each value.

Not imported at the top of anything: whoever has a config in memory needs no YAML.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

MAX_CHARACTERS = 2**20
MAX_DEPTH = 32
MAX_NODES = (
    20_000  # which take a second: names, values, lists and sections, where each alias counts as all that it stands for
)

Path = tuple[str | int, ...]


class YamlMistake(ValueError):
    """A text that is no YAML, or none that a config may hold.

    Attributes:
        line: where, counted from 1.
    """

    def __init__(self, text: str, line: int) -> None:
        super().__init__(text)
        self.line = line


def read_yaml(text: str, room: int = 1) -> tuple[Any, dict[Path, int]]:
    """The values of a YAML text.

    Args:
        text: to read.
        room: how many times as long it may be as a config that people write.

    Returns:
        The values, and the line (counted from 1) of each place in them, named by keys and positions.

    Raises:
        YamlMistake: it is not YAML, too large or too deep, or has a key twice.
    """
    if len(text) > room * MAX_CHARACTERS:
        raise YamlMistake(
            f"more than {room * MAX_CHARACTERS} characters; a long list of classes goes into a file of its own", 1
        )
    try:
        loader = _Loader(text, room * MAX_NODES)
        root = loader.get_single_node()
        lines: dict[Path, int] = {}
        if root is None:
            return None, lines
        loader.note_lines(root, (), lines)
        return loader.construct_document(root), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise YamlMistake(f"is not YAML: {said}", mark.line + 1 if mark else 1) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlMistake(f"is not YAML: the character {error.character:#x} is not allowed", line) from error


@dataclass
class _Size:
    """Nodes in a node, itself counted, and levels of them."""

    nodes: int = 0
    levels: int = 1


class _Loader(yaml.SafeLoader):
    def __init__(self, text: str, max_nodes: int) -> None:
        super().__init__(text)
        self._max_nodes = max_nodes
        self._open = [_Size()]  # of each node that is not complete, as far as it is known
        self._complete: dict[int, _Size] = {}  # by the node's id

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuses what is too deep, too much, or inside itself, before it is built."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if self.check_event(yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if id(node) not in self._complete:
                raise YamlMistake(f"the anchor '{event.anchor}' is inside itself", line)
            size = self._complete[id(node)]
        else:
            self._check_depth(1, line)
            self._open.append(_Size(nodes=1))
            node = super().compose_node(parent, index)
            size = self._complete[id(node)] = self._open.pop()
        self._check_depth(size.levels, line)
        around = self._open[-1]
        around.nodes += size.nodes
        around.levels = max(around.levels, size.levels + 1)
        if around.nodes > self._max_nodes:
            raise YamlMistake(f"more than {self._max_nodes} values, what its aliases stand for counted", line)
        return node

    def _check_depth(self, levels: int, line: int) -> None:
        if len(self._open) - 1 + levels > MAX_DEPTH:
            raise YamlMistake(f"more than {MAX_DEPTH} levels, one inside the other", line)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Tells where a value is that cannot be made; yaml raises nearly anything for a tag on what does not fit it."""
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, str):
                value.encode()  # an escape such as "\\ud800" makes a text that no file can hold
            return value
        except (YamlMistake, yaml.YAMLError):
            raise
        except Exception as error:
            text = f"is not YAML: {str(node.value)[:40]!r} is no {node.tag.rpartition(':')[2]}"
            raise YamlMistake(text, node.start_mark.line + 1) from error

    def note_lines(self, node: yaml.Node, place: Path, lines: dict[Path, int]) -> None:
        """Notes the lines below a node. Raises YamlMistake where a key is there twice."""
        lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            for position, item in enumerate(node.value):
                self.note_lines(item, (*place, position), lines)
        if not isinstance(node, yaml.MappingNode):
            return
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            is_merge = key.tag == "tag:yaml.org,2002:merge"  # `<<: *other`
            name = "<<" if is_merge else self.construct_object(key)
            if not isinstance(name, str):
                raise YamlMistake(f"a name expected before the colon, found {type(name).__name__}", line)
            if name in seen:
                here = ".".join(map(str, (*place, name)))
                raise YamlMistake(f"{here} is there twice, first in line {seen[name]}; keep one, or join them", line)
            seen[name] = line
            lines[*place, name] = line
            self.note_lines(value, (*place, name), lines)

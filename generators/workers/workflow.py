"""A ComfyUI workflow in API format as a template: which of its inputs a request fills, and the workflow with them filled.

A slot says where a value goes: `NODE.inputs.NAME`, by the node's number or by its title.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from generators import shipped
from manifests.records import digest_of

Value = str | int | float
Nodes = dict[str, dict[str, Any]]

BETWEEN = ".inputs."
PREFIX = "filename_prefix"
"""what nodes that save files call the beginning of their names"""


@dataclass(frozen=True)
class Workflow:
    """Nodes by their numbers, and the slots by what fills them."""

    nodes: Nodes
    slots: Mapping[str, tuple[tuple[str, str], ...]]
    """name → places, as node and input"""
    output: str
    """the node whose file is fetched; empty: whichever wrote one"""

    def filled(self, values: Mapping[str, Value | None], prefix: str) -> Nodes:
        """The workflow to be sent. What is saved gets names that begin with `prefix`. A slot whose value is None takes its node along,
        with every link to that."""
        nodes: Nodes = json.loads(json.dumps(self.nodes))
        for node in nodes.values():
            if isinstance(node["inputs"].get(PREFIX), str):
                node["inputs"][PREFIX] = prefix
        for name, places in self.slots.items():
            for number, field in places:
                if values[name] is not None:
                    nodes[number]["inputs"][field] = values[name]
        for number in {number for name, places in self.slots.items() if values[name] is None for number, _ in places}:
            _removed(nodes, number)
        return nodes

    def digest(self) -> str:
        """Of all that can reach a pixel: neither titles nor what stands where a slot is filled, nor names of files."""
        nodes = self.filled({name: f"{{{name}}}" for name in self.slots}, "")
        for node in nodes.values():
            node.pop("_meta", None)
        return digest_of({"nodes": nodes, "output": self.output})


def _removed(nodes: Nodes, number: str) -> None:
    nodes.pop(number, None)
    for node in nodes.values():
        for name, value in list(node["inputs"].items()):
            if _is_link(value) and value[0] == number:
                del node["inputs"][name]


def _is_link(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


def load(path: str, slots: Mapping[str, tuple[str, ...]], output: str) -> Workflow:
    """The workflow of a file. Raises ValueError when it is none, or has no such node or input."""
    nodes = _nodes(path)
    places = {name: tuple(_place(nodes, name, place) for place in asked) for name, asked in sorted(slots.items())}
    taken: dict[tuple[str, str], str] = {}
    for name, found in places.items():
        for place in found:
            if place in taken:
                raise ValueError(f"slots {taken[place]} and {name} fill the same input, {place[0]}{BETWEEN}{place[1]}")
            taken[place] = name
    return Workflow(nodes, places, _node(nodes, "output", output) if output else "")


def _nodes(path: str) -> Nodes:
    try:
        text = shipped.text_of(path)
    except ValueError as e:
        raise ValueError(f"workflow {path} {e}") from None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise ValueError(f"workflow {path} is no JSON: {' '.join(str(e).split())}") from None
    if isinstance(data, dict) and isinstance(data.get("nodes"), list):
        raise ValueError(f"workflow {path} is the editor's own format; save it with Workflow > Export (API)")
    if not isinstance(data, dict) or not data or not all(_is_node(node) for node in data.values()):
        raise ValueError(f'workflow {path} is no workflow in API format, which is {{"3": {{"class_type": …, "inputs": {{…}}}}, …}}')
    return data


def _is_node(node: object) -> bool:
    return isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)


def _place(nodes: Nodes, name: str, place: str) -> tuple[str, str]:
    node, between, field = place.rpartition(BETWEEN)
    if not between or not node or not field:
        raise ValueError(f"slot {name}: {place!r} is no place; write NODE{BETWEEN}NAME, as 12{BETWEEN}image or Load Image{BETWEEN}image")
    number = _node(nodes, f"slot {name}", node)
    if field not in nodes[number]["inputs"]:
        there = ", ".join(sorted(nodes[number]["inputs"])) or "none"
        raise ValueError(f"slot {name}: node {node!r} ({nodes[number]['class_type']}) has no input {field!r}; it has {there}")
    return number, field


def _node(nodes: Nodes, what: str, asked: str) -> str:
    """A node's number, from that or its title."""
    if asked in nodes:
        return asked
    found = list(_titled(nodes, asked))
    if len(found) != 1:
        how = f"{len(found)} nodes have that title: use a number" if found else f"numbers are {', '.join(sorted(nodes)[:20])}"
        raise ValueError(f"{what}: the workflow has no one node {asked!r}; {how}")
    return found[0]


def _titled(nodes: Nodes, title: str) -> Iterator[str]:
    for number, node in nodes.items():
        about = node.get("_meta")
        if isinstance(about, dict) and about.get("title") == title:
            yield number

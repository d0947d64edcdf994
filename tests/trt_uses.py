"""What our files use of TensorRT: names, and calls with their arguments, found by walking their syntax.

Types are followed as far as the bindings' own signatures tell them: `trt.Builder(...)` is a Builder, what its
`create_network` returns is an INetworkDefinition, and so on; annotations of arguments and fields count, too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODULES = {"trt": "trt", "trtp": "plugin"}
"""The names that our files give to `tensorrt` and `tensorrt.plugin`."""
HANDED = {"desc": "TensorDesc", "launch": "KernelLaunchParams", "combination": "AutoTuneCombination"}
"""What the definitions of plugins call the classes that they are handed."""
RAW = {"nvonnxparser::IParserError": "ParserError"}
"""Types that a signature does not name as Python knows them."""


@dataclass(frozen=True)
class Use:
    """A name, or a call of it with so many positional arguments and these keywords."""

    where: str
    owner: str
    """"trt", "plugin", or a class."""
    name: str
    positional: int | None = None
    """None for what is not called."""
    keywords: tuple[str, ...] = ()


class Walk(ast.NodeVisitor):
    """The uses in one file, against one version's `api`."""

    def __init__(self, path: str, source: str, api: dict[str, Any]) -> None:
        self.path, self.api, self.uses = path, api, list[Use]()
        tree = ast.parse(source)
        self.fields: dict[tuple[str, str], str] = {}
        """Types of `self.x`, by class."""
        self.returns: dict[str, str] = {}
        self.types: dict[str, str] = {}
        self.of_class = ""
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                self.returns[node.name] = self._annotated(node.returns)
        for _ in range(2):  # fields may be used above where they are set
            self.uses.clear()
            self.visit(tree)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        before, self.of_class = self.of_class, node.name
        for line in node.body:
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                self._remember(("self", line.target.id), self._annotated(line.annotation))
        self.generic_visit(node)
        self.of_class = before

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        before, self.types = self.types, dict(self.types)
        for argument in (*node.args.args, *node.args.kwonlyargs):
            self.types[argument.arg] = self._annotated(argument.annotation)
        self.generic_visit(node)
        self.types = before

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        found = self.type_of(node.value)
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.types[target.id] = found
            elif isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
                self._remember(("self", target.attr), found)
            elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                for each, value in zip(target.elts, node.value.elts, strict=True):
                    if isinstance(each, ast.Name):
                        self.types[each.id] = self.type_of(value)
                    elif isinstance(each, ast.Attribute):
                        self._remember(("self", each.attr), self.type_of(value))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.generic_visit(node)
        found = self._annotated(node.annotation) or (self.type_of(node.value) if node.value else "")
        if isinstance(node.target, ast.Name):
            self.types[node.target.id] = found
        elif isinstance(node.target, ast.Attribute):
            self._remember(("self", node.target.attr), found)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute) and (owner := self._owner(node.func.value)):
            keywords = tuple(k.arg or "**" for k in node.keywords)
            explicit = node.func.attr == "__init__"  # of a base class, with self before the others
            self._use(node, owner, node.func.attr, len(node.args) - explicit, keywords)
            self.visit(node.func.value)
        else:
            self.visit(node.func)
        for part in (*node.args, *(k.value for k in node.keywords)):
            self.visit(part)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if owner := self._owner(node.value):
            self._use(node, owner, node.attr)
        self.visit(node.value)

    def type_of(self, node: ast.expr | None) -> str:
        """The class of an expression as far as it is TensorRT's; "" if not."""
        if isinstance(node, ast.Name):
            return self.types.get(node.id, "")
        if isinstance(node, ast.Attribute):
            if ast.unparse(node.value) == "self":
                return self.fields.get((self.of_class, node.attr), "")
            owner = self._owner(node.value)
            if owner == "trt" and "members" in self.api["trt"].get(node.attr, {}):
                return node.attr
            member = self._member(owner, node.attr) if owner else None
            return short((member or {}).get("type", ""))
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                return self.returns.get(node.func.id, "")
            if isinstance(node.func, ast.Attribute) and (owner := self._owner(node.func.value)):
                if owner in ("trt", "plugin") and "members" in self.api[owner].get(node.func.attr, {}):
                    return node.func.attr
                member = self._member(owner, node.func.attr)
                results = {short(r) for call in (member or {}).get("calls", ()) for r in returned(call)}
                return results.pop() if len(results) == 1 else ""
        return ""

    def _owner(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name) and node.id in MODULES:
            return MODULES[node.id]
        found = self.type_of(node)
        return found if found in self.api["trt"] or found in self.api["plugin"] else ""

    def _member(self, owner: str, name: str) -> dict[str, Any] | None:
        if owner in ("trt", "plugin"):
            return self.api[owner].get(name)
        for part in ("trt", "plugin"):
            if owner in self.api[part]:
                members: dict[str, Any] = self.api[part][owner].get("members", {})
                return members.get(name)
        return None

    def _annotated(self, annotation: ast.expr | None) -> str:
        """The TensorRT class that an annotation names, alone or beside None."""
        text = "" if annotation is None else ast.unparse(annotation)
        found = re.findall(r"\btrtp?\.(\w+)\b(?!\.)", text)
        return HANDED.get(text, str(found[0]) if found else "")

    def _remember(self, place: tuple[str, str], found: str) -> None:
        if found:
            self.fields[self.of_class, place[1]] = found

    def _use(
        self,
        node: ast.expr,
        owner: str,
        name: str,
        positional: int | None = None,
        keywords: tuple[str, ...] = (),
    ) -> None:
        self.uses.append(Use(f"{self.path}:{node.lineno}", owner, name, positional, keywords))


def faults(use: Use, api: dict[str, Any]) -> Iterator[str]:
    """In words, what of `use` this version does not have."""
    known = api[use.owner] if use.owner in ("trt", "plugin") else {}
    for part in ("trt", "plugin"):
        known = known or api[part].get(use.owner, {}).get("members", {})
    if use.name not in known:
        yield f"{use.where}: {use.owner} has no {use.name}"
        return
    entry = known[use.name]
    if use.positional is None or (not entry.get("calls") and "members" not in entry):
        return
    calls = entry.get("calls") or entry["members"].get("__init__", {}).get("calls", [])
    wanted = [call for call in calls if "*args" not in call]
    if wanted and not any(accepts(call, use) for call in wanted):
        yield f"{use.where}: {use.owner}.{use.name} takes {wanted}, given {use.positional} and {use.keywords}"


def accepts(call: str, use: Use) -> bool:
    """Whether a signature takes the arguments of `use`."""
    inner = call[call.index("(") + 1 : call.rindex(") ->") if ") ->" in call else call.rindex(")")]
    given, depth, part = [], 0, ""
    for letter in inner + ",":
        depth += {"[": 1, "(": 1, "<": 1, "]": -1, ")": -1, ">": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            given.append(part.strip())
            part = ""
        else:
            part += letter
    parameters = [p for p in given if p and not p.startswith("self") and p not in ("*", "/")]
    names = [re.split(r"[:=]", p)[0].strip() for p in parameters]
    needed = [n for n, p in zip(names, parameters, strict=True) if "=" not in p]
    covered = {*names[: use.positional], *use.keywords}
    return (use.positional or 0) <= len(names) and set(use.keywords) <= set(names) and set(needed) <= covered


def returned(call: str) -> list[str]:
    """The type after the arrow, if there is one."""
    return re.findall(r"-> (.+)$", call)


def short(name: str) -> str:
    """The class's own name."""
    return RAW.get(name, name.split(" |")[0].split(".")[-1])


FILES = (
    "engines/trt.py",
    "engines/trt_window.py",
    "export/tensorrt.py",
    "kernels/aot.py",
    "kernels/plugin.py",
    "kernels/plugin_attention.py",
)
"""Ours that know TensorRT."""


def uses(root: Path, api: dict[str, Any]) -> list[Use]:
    """Of all `FILES` in the checkout `root`."""
    return [use for name in FILES for use in Walk(name, (root / name).read_text("utf-8"), api).uses]

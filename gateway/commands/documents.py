"""Route documents in files: YAML or JSON, one or several a file, a folder of them; read strictly, with the file's name in every complaint."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from gateway.commands.talk import CommandFailed
from routing.errors import Problem, RouteInvalid
from routing.validate import validate

SUFFIXES: Final = (".yaml", ".yml", ".json")
_BYTES_MAX: Final = 1 << 20
_VALUES_MAX: Final = 100_000


class Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, where YAML would silently take the last. A moment stays the text that it is."""


def read_documents(paths: Sequence[Path]) -> list[tuple[Path, dict[str, Any]]]:
    """Every document of the files, and of the route files in the folders, in order of their names. Raises CommandFailed."""
    found = [(path, document) for path in paths for file in _files(path) for path, document in _read(file)]
    if not found:
        raise CommandFailed(f"no route document in {', '.join(str(path) for path in paths)} ({', '.join(SUFFIXES)})")
    names = [document.get("endpoint") for _, document in found]
    for (path, document), name in zip(found, names, strict=True):
        if names.count(name) > 1:
            raise CommandFailed(f"{path}: endpoint '{document.get('endpoint')}' has more than one document")
    return found


def problems_of(document: object) -> list[Problem]:
    """What is wrong with a document by itself; whether the registry has its models is asked by `apply`."""
    try:
        validate(document)
    except RouteInvalid as error:
        return list(error.problems)
    return []


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
    return [path]


def _read(path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    try:
        raw = path.read_bytes()
        if len(raw) > _BYTES_MAX:
            raise CommandFailed(f"{path}: {len(raw)} bytes are too many for a route document")
        if path.suffix == ".json":
            documents = [msgspec.json.decode(raw)]
        else:
            documents = list(_parts(raw))
    except (OSError, msgspec.DecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise CommandFailed(f"{path}: {' '.join(str(error).split())}") from error
    for document in documents:
        if document is None:  # an empty part between two `---`
            continue
        if not isinstance(document, dict):
            raise CommandFailed(f"{path}: wanted a mapping with `endpoint`, got {type(document).__name__}")
        if _size(document) > _VALUES_MAX:
            raise CommandFailed(
                f"{path}: wanted at most {_VALUES_MAX:,} values, with its aliases written out; got more"
            )
        yield path, document


def _parts(raw: bytes) -> Iterator[Any]:
    loader = Loader(raw)
    loader.name = "it"  # in complaints, behind the file's name
    try:
        while loader.check_data():  # type: ignore[no-untyped-call]  # PyYAML has no types
            yield loader.get_data()
    finally:
        loader.dispose()


def _size(value: object) -> int:
    """Values in it, counted as often as they are named: a few lines of YAML aliases may stand for billions. Stops above the bound."""
    size, waiting = 0, [value]
    while waiting and size <= _VALUES_MAX:
        one = waiting.pop()
        inner = [*one.keys(), *one.values()] if isinstance(one, dict) else one if isinstance(one, list) else ()
        size += 1 + len(inner)
        waiting += [part for part in inner if isinstance(part, dict | list)]
    return size


_MERGE: Final = "tag:yaml.org,2002:merge"
_TIMESTAMP: Final = "tag:yaml.org,2002:timestamp"


def _mapping(loader: Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value if key.tag != _MERGE]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.MarkedYAMLError(problem=f"key {key!r} stands twice", problem_mark=node.start_mark)
    return loader.construct_mapping(node, deep=True)


Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag != _TIMESTAMP]
    for first, known in Loader.yaml_implicit_resolvers.items()
}

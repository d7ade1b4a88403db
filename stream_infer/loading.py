"""Finding a topology by name: a module of `topologies/`, any module, or a file."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from stream_infer.core.errors import DeclarationError
from stream_infer.core.topology import Topology

FOLDER = "topologies"


def load_topology(name: str) -> Topology:
    """Return the topology that `name` stands for.

    `flight_delay` is the module `topologies.flight_delay`; `package.module` and `path/to/file.py`
    work too; `:variable` picks one of several topologies in a module.

    Raises DeclarationError when there is none, offering the nearest name.
    """
    place, _, variable = name.partition(":")
    module = _module(place)
    found = {key: value for key, value in vars(module).items() if isinstance(value, Topology)}
    if variable:
        if variable not in found:
            raise DeclarationError(
                place, f"has no topology {variable!r}", name=variable, choices=found
            )
        return found[variable]
    if len({id(topology) for topology in found.values()}) != 1:
        raise DeclarationError(
            place,
            f"declares {len(found)} topologies ({', '.join(sorted(found)) or 'none'}); "
            f"one is needed, or name it as {place}:VARIABLE",
        )
    return next(iter(found.values()))


def _module(place: str) -> ModuleType:
    if place.endswith(".py"):
        return _from_file(Path(place))
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    qualified = place if "." in place else f"{FOLDER}.{place}"
    try:
        return importlib.import_module(qualified)
    except ModuleNotFoundError as error:
        if error.name is not None and (qualified + ".").startswith(error.name + "."):
            known = [path.stem for path in Path(FOLDER).glob("*.py") if path.stem != "__init__"]
            raise DeclarationError(
                f"topology {place!r}", "not found", name=place, choices=known
            ) from None
        raise


def _from_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.exists():
        raise DeclarationError(f"topology {str(path)!r}", "there is no such file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module

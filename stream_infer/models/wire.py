"""Reading an ONNX file's outline from its protobuf bytes, without parsing it as a model.

Every tensor, in graphs, subgraphs, functions and attributes, must carry its data in the file. A
tensor with external data names a path, or a memory address, that the runtime would read; so such a
file is refused before the runtime sees it. Field numbers are those of onnx.proto (IR version 3+).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from stream_infer.core.errors import ModelError

_DEPTH_MAX = 64
# The runtime tells its flatbuffers format, which this reader does not understand, by these bytes.
_ORT_FORMAT = b"ORTM"
_TAG_MAX = 2**32 - 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# message → {field number: message inside}; other fields cannot contain a tensor.
_INSIDE: Final = {
    "Model": {7: "Graph", 14: "Property", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor",
        6: "Graph",
        10: "Tensor",
        11: "Graph",
        22: "SparseTensor",
        23: "SparseTensor",
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
}
_TENSOR_NAME, _TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 8, 13, 14
_PROPERTY_KEY, _PROPERTY_VALUE = 1, 2


@dataclass(frozen=True, slots=True)
class Outline:
    """Metadata of a model file, and how many nodes and tensors it has."""

    metadata: dict[str, str]
    nodes: int
    tensors: int


@dataclass(slots=True)
class _Found:
    metadata: dict[str, str] = field(default_factory=dict)
    nodes: int = 0
    tensors: int = 0


def outline(content: bytes, what: str) -> Outline:
    """Return the outline of an ONNX file; `what` names it in errors.

    Raises ModelError when the bytes are no protobuf message with a graph, or when any tensor has
    external data.
    """
    if bytes(content[4:8]) == _ORT_FORMAT:
        raise ModelError(f"{what} is in onnxruntime's own format; store the ONNX file itself")
    found = _Found()
    try:
        _walk(memoryview(content), "Model", found, what, 0)
    except (IndexError, ValueError, UnicodeDecodeError) as error:
        raise ModelError(f"{what} is not an ONNX file: {error}") from error
    if not found.nodes:
        raise ModelError(f"{what} is not an ONNX file: it has no node")
    return Outline(found.metadata, found.nodes, found.tensors)


def _walk(data: memoryview, message: str, found: _Found, what: str, depth: int) -> None:
    if depth > _DEPTH_MAX:
        raise ValueError(f"messages nested deeper than {_DEPTH_MAX}")
    if message == "Tensor":
        _check_tensor(data, found, what)
        return
    if message == "Property":
        _read_property(data, found)
        return
    found.nodes += message == "Node"
    inside = _INSIDE[message]
    for number, value in _fields(data):
        if number in inside:
            if not isinstance(value, memoryview):
                raise ValueError(f"field {number} of {message} is not a message")
            _walk(value, inside[number], found, what, depth + 1)


def _check_tensor(data: memoryview, found: _Found, what: str) -> None:
    found.tensors += 1
    name, external = "", False
    for number, value in _fields(data):
        if number == _TENSOR_NAME and isinstance(value, memoryview):
            name = bytes(value[:100]).decode(errors="replace")
        elif number == _TENSOR_EXTERNAL_DATA or (number == _TENSOR_DATA_LOCATION and value != 0):
            external = True
    if external:
        raise ModelError(
            f"{what}: tensor {name!r} has external data, which is refused; "
            "save the model as one file (onnx.save_model(…, save_as_external_data=False))"
        )


def _read_property(data: memoryview, found: _Found) -> None:
    texts = {number: value for number, value in _fields(data) if isinstance(value, memoryview)}
    key = bytes(texts.get(_PROPERTY_KEY, b"")).decode()
    found.metadata[key] = bytes(texts.get(_PROPERTY_VALUE, b"")).decode()


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview | None]]:
    """Yield (field number, value): an int, the bytes inside, or None for fixed-width numbers."""
    return ((number, None if fixed else value) for number, value, fixed in _all_fields(data))


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, value): an int, or the bytes inside or of a fixed-width number.

    Raises IndexError or ValueError where the bytes are no message.
    """
    return ((number, value) for number, value, _ in _all_fields(data))


def _all_fields(data: memoryview) -> Iterator[tuple[int, int | memoryview, bool]]:
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        if not 8 <= tag <= _TAG_MAX:
            # Other parsers cut a tag to 32 bits and would see another field than this one does.
            raise ValueError(f"{tag} is no field's tag")
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, value, False
            continue
        fixed = kind in (_FIXED32, _FIXED64)
        if kind == _BYTES:
            size, at = _varint(data, at)
        elif fixed:
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"field {number} has wire type {kind}")
        if size > end - at:
            raise ValueError(f"field {number} is cut short")
        yield number, data[at : at + size], fixed
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    byte = data[at]
    if byte < 128:
        return byte, at + 1
    value, shift = byte & 127, 7
    while byte >= 128:
        if shift > 63:
            raise ValueError("a number is longer than 10 bytes")
        at += 1
        byte = data[at]
        value |= (byte & 127) << shift
        shift += 7
    return value, at + 1

"""The command line: thin commands over the library.

What a command needs is imported inside it: `stream-infer --help`, and the completion of a shell,
must answer at once, and Kafka's, ONNX's and Feast's libraries take from half a second to several.
"""

from stream_infer.cli.app import main

__all__ = ["main"]

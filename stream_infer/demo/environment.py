"""Handing settings to a child process."""

import os

import msgspec

from stream_infer.settings import PREFIX, Settings


def environment(settings: Settings) -> dict[str, str]:
    """Return this process' environment with the settings in it, for a child to read.

    By environment rather than by argument: a Redis URL may hold a password, and every user of a
    machine can list arguments.
    """
    ours = {
        f"{PREFIX}{name.upper()}": str(value)
        for name, value in msgspec.structs.asdict(settings).items()
    }
    return os.environ | ours

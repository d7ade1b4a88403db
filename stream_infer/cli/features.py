"""`features`: apply a topology's Feast repository, and write its latest rows to Redis."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from stream_infer.cli.options import Json, RedisUrl, settings_of
from stream_infer.cli.output import emit_json

Repo = Annotated[str, typer.Option(metavar="DIR", help="Folder of the Feast repository.")]


@contextmanager
def told_in_one_line(repo: str) -> Iterator[None]:
    """Turn whatever goes wrong in Feast, or in the repository's own code, into one line."""
    from stream_infer.core.errors import DeclarationError, StreamInferError

    try:
        yield
    except StreamInferError:
        raise
    except Exception as error:
        # Feast and what it builds on (pandas, pyarrow, Redis' client) have no common error.
        raise DeclarationError(
            f"Feast repository {repo}", f"{type(error).__name__}: {error}"
        ) from error


def apply(repo: Repo = "features", json: Json = False) -> None:
    """Make the registry hold what the Feast repository defines."""
    from stream_infer.store import feast_repo

    with told_in_one_line(repo):
        services = feast_repo.apply(Path(repo))
    if json:
        emit_json({"repo": repo, "services": services})
        return
    print(f"{repo}: applied; feature services: {', '.join(services)}")


def materialize(
    until: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"],
            help="Rows of this moment (UTC) and before; default: now.",
            show_default=False,
        ),
    ] = None,
    repo: Repo = "features",
    redis: RedisUrl = None,
    json: Json = False,
) -> None:
    """Apply the Feast repository and write each view's latest rows to Redis."""
    from stream_infer.demo.progress import progress
    from stream_infer.store import feast_repo

    settings = settings_of(redis=redis)
    end = datetime.now(UTC) if until is None else until.replace(tzinfo=UTC)
    with told_in_one_line(repo), progress() as report:
        views = feast_repo.apply_and_materialize(Path(repo), end, settings.redis, report)
    if json:
        emit_json({"repo": repo, "until": end, "views": views})
        return
    print(f"{repo}: materialised up to {end:%Y-%m-%d %H:%M:%S} UTC: {', '.join(views)}")

"""`features`: apply a topology's Feast repository, and write its latest rows to Redis."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from stream_infer.cli.options import Json, RedisUrl, settings_of
from stream_infer.cli.output import emit_json

Repo = Annotated[str, typer.Option(metavar="DIR", help="Folder of the Feast repository.")]


def apply(repo: Repo = "features", json: Json = False) -> None:
    """Make the registry hold what the Feast repository defines."""
    from stream_infer.store import feast_repo

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
    with progress() as report:
        views = feast_repo.apply_and_materialize(Path(repo), end, settings.redis, report)
    if json:
        emit_json({"repo": repo, "until": end, "views": views})
        return
    print(f"{repo}: materialised up to {end:%Y-%m-%d %H:%M:%S} UTC: {', '.join(views)}")

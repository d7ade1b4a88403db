"""The program `stream-infer`: its commands by name."""

import sys

from stream_infer.cli import check, describe, dlq, features, produce, run, show, tail, topics, train
from stream_infer.cli.help import group
from stream_infer.cli.output import FAILED, PROGRAM, USAGE, say

app = group(
    "Predict on streams of events: Kafka in, ONNX models on live features, results out.",
    name=PROGRAM,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
topics_app = group("The topics of a topology.")
topics_app.command("create")(topics.create)
topics_app.command("list")(topics.list_)
features_app = group("The Feast repository of a topology.")
features_app.command("apply")(features.apply)
features_app.command("materialize")(features.materialize)
dlq_app = group("The dead letters of a topology.")
dlq_app.command("ls")(dlq.ls)
dlq_app.command("show")(dlq.show)
dlq_app.command("replay")(dlq.replay)

app.command()(show.demo)
app.command()(show.evaluate)
app.command()(run.worker)
app.command()(run.serve)
app.command()(check.check)
app.add_typer(topics_app, name="topics")
app.command()(produce.produce)
app.command()(tail.tail)
app.add_typer(dlq_app, name="dlq")
app.command()(train.train)
app.add_typer(features_app, name="features")
app.command()(describe.schema)
app.command()(describe.version)


def main() -> None:
    """Run the program; an error raised on purpose ends it with one line, never with a trace."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        from stream_infer.core.errors import SettingsError, StreamInferError

        if not isinstance(error, StreamInferError):
            raise
        say(f"{PROGRAM}: {' '.join(str(error).split())}")
        sys.exit(USAGE if isinstance(error, SettingsError) else FAILED)

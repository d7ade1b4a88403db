"""Make what the flight example needs before its first start: data, batch features, models.

Where the settings say, and only what is not there yet; `docker compose up` runs it once.
"""

from stream_infer.demo.progress import progress
from stream_infer.demo.servers import data_folder
from stream_infer.demo.setup import prepare_data, prepare_features, prepare_models
from stream_infer.settings import load


def main() -> None:
    """Prepare the flight example. Raises StreamInferError where a part cannot be made."""
    settings = load()
    with progress() as report:
        made = prepare_data(data_folder(settings.data_dir), report)
        prepare_features(made, settings.redis, report)
        prepare_models(made, report)
    print(f"prepared: models in {made.models_dir}")


if __name__ == "__main__":
    main()

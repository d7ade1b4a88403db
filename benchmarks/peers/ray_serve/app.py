"""A score over HTTP by Ray Serve: one replica with Feast's asynchronous SDK and ONNX Runtime."""

import signal
import tempfile
import threading

import ray
from feast import FeatureStore
from ray import serve
from standard import SERVICE, Models, habits, setting
from starlette.requests import Request
from starlette.responses import JSONResponse


@serve.deployment(
    num_replicas=1, max_ongoing_requests=100, logging_config={"enable_access_log": False}
)
class Scorer:
    """Scores payments, without streaming features."""

    def __init__(self) -> None:
        self.store = FeatureStore(repo_path=setting("FEAST"))
        self.service = self.store.get_feature_service(SERVICE)
        self.models = Models()

    async def __call__(self, request: Request) -> JSONResponse:
        """Score a payment."""
        payment = await request.json()
        features = await self.store.get_online_features_async(
            features=self.service, entity_rows=[{"account": payment["account"]}]
        )
        row = [payment["amount"], payment["items"], 0, 0, 0, 0, *habits(features)]
        return JSONResponse(self.models.predict(row))


def main() -> None:
    """Serve until told to stop."""
    ended = threading.Event()
    # The paths of its sockets must be short.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=1,
            include_dashboard=False,
            object_store_memory=100 * 1024 * 1024,
            _temp_dir=folder,
        )
        serve.start(http_options={"host": "127.0.0.1", "port": int(setting("PORT"))})
        serve.run(Scorer.bind(), route_prefix="/score")
        # Only now: Ray has a handler of its own, which would leave its files behind.
        signal.signal(signal.SIGTERM, lambda *_: ended.set())
        print("serving", flush=True)
        ended.wait()
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()

"""A score over HTTP by MLServer: a runtime of our own with Feast's SDK and ONNX Runtime."""

from feast import FeatureStore
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from standard import SERVICE, Models, habits, setting


class Scorer(MLModel):
    """Scores one payment for each request, without streaming features."""

    async def load(self) -> bool:
        """Read the registry and the models."""
        self.store = FeatureStore(repo_path=setting("FEAST"))
        self.service = self.store.get_feature_service(SERVICE)
        self.models = Models()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Score a payment."""
        given = {tensor.name: tensor.data[0] for tensor in payload.inputs}
        features = await self.store.get_online_features_async(
            features=self.service, entity_rows=[{"account": given["account"]}]
        )
        row = [given["amount"], given["items"], 0, 0, 0, 0, *habits(features)]
        said = self.models.predict(row)
        named = {"score": said["score"], **said["scores"]}
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                ResponseOutput(name=name, shape=[1], datatype="FP64", data=[value])
                for name, value in named.items()
            ],
        )

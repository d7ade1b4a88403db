"""A score over HTTP by BentoML, Feast's asynchronous SDK and ONNX Runtime."""

import bentoml
from feast import FeatureStore
from pydantic import BaseModel
from standard import SERVICE, Models, habits, setting


class Prediction(BaseModel):
    """The weighted mean, and what each model says."""

    score: float
    scores: dict[str, float]


@bentoml.service(workers=1, traffic={"timeout": 30}, logging={"access": {"enabled": False}})
class Scorer:
    """Scores payments, without streaming features."""

    def __init__(self) -> None:
        self.store = FeatureStore(repo_path=setting("FEAST"))
        self.service = self.store.get_feature_service(SERVICE)
        self.models = Models()

    @bentoml.api
    async def score(self, account: str, amount: float, items: int) -> Prediction:
        """Score a payment."""
        features = await self.store.get_online_features_async(
            features=self.service, entity_rows=[{"account": account}]
        )
        row = [amount, items, 0, 0, 0, 0, *habits(features)]
        return Prediction(**self.models.predict(row))

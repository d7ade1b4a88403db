"""A score over HTTP by FastAPI, Feast's asynchronous SDK and ONNX Runtime."""

import gc
from contextlib import asynccontextmanager

from fastapi import FastAPI
from feast import FeatureStore
from pydantic import BaseModel
from standard import SERVICE, Models, habits, setting

store = FeatureStore(repo_path=setting("FEAST"))
service = store.get_feature_service(SERVICE)
models = Models()


class Payment(BaseModel):
    """An account pays."""

    account: str
    amount: float
    items: int


class Prediction(BaseModel):
    """The weighted mean, and what each model says."""

    score: float
    scores: dict[str, float]


@asynccontextmanager
async def lifespan(_: FastAPI):
    """Connect before the first request; keep what was loaded out of garbage collections."""
    await store.initialize()
    gc.freeze()
    yield
    await store.close()


app = FastAPI(lifespan=lifespan)


@app.post("/score")
async def score(payment: Payment) -> Prediction:
    """Score a payment; it has no streaming features."""
    features = await store.get_online_features_async(
        features=service, entity_rows=[{"account": payment.account}]
    )
    row = [payment.amount, payment.items, 0, 0, 0, 0, *habits(features)]
    return Prediction(**models.predict(row))


@app.get("/ready")
async def ready() -> None:
    """Answer once it serves."""

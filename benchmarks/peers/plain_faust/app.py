"""The standard job in Faust: windowed tables, Feast's SDK for each event, ONNX Runtime."""

from datetime import datetime

import faust
from feast import FeatureStore
from standard import SERVICE, Models, habits, setting

app = faust.App(
    setting("GROUP"),
    broker=f"kafka://{setting('BROKER')}",
    store="memory://",
    datadir=setting("FOLDER"),
    topic_partitions=int(setting("PARTITIONS")),
    topic_replication_factor=1,
    broker_commit_interval=1.0,
    consumer_auto_offset_reset="earliest",
    web_enabled=False,
)


class Payment(faust.Record, serializer="json", coerce=True):
    """An account pays."""

    account: str
    at: datetime
    amount: float
    items: int


MINUTE, HOUR = 60, 3_600
payments = app.topic(setting("EVENTS"), key_type=bytes, value_type=Payment)
results = app.topic(setting("RESULTS"), value_serializer="json")


def windowed(name, kind, size, step):
    """A table by account and hopping windows of event time; how old its oldest open window is."""
    table = app.Table(name, default=kind).hopping(size, step, expires=2 * size)
    return table.relative_to_field(Payment.at), size - step


tables = [
    windowed("counts_5m", int, 5 * MINUTE, MINUTE),
    windowed("counts_1h", int, HOUR, 5 * MINUTE),
    windowed("sums_5m", float, 5 * MINUTE, MINUTE),
    windowed("sums_1h", float, HOUR, 5 * MINUTE),
]

store = FeatureStore(repo_path=setting("FEAST"))
service = store.get_feature_service(SERVICE)
models = Models()


@app.agent(payments)
async def predict(stream):
    """Score each payment with what was known before it, then count it."""
    async for payment in stream:
        row = [payment.amount, payment.items]
        added = 1, 1, payment.amount, payment.amount
        for (table, age), amount in zip(tables, added, strict=True):
            row.append(table[payment.account].delta(age))
            table[payment.account] += amount
        features = await store.get_online_features_async(
            features=service, entity_rows=[{"account": payment.account}]
        )
        prediction = models.predict([*row, *habits(features)])
        at = payment.at.isoformat()
        await results.send(
            key=payment.account,
            value={"account": payment.account, "event_time": at, **prediction},
        )


if __name__ == "__main__":
    app.main()

"""The standard job in Quix Streams: windows in its state, Feast's SDK, ONNX Runtime."""

from datetime import datetime
from itertools import chain

from feast import FeatureStore
from quixstreams import Application
from standard import SERVICE, Models, habits, setting

MINUTES = 60
NO_HABITS = [1.0] * 8

app = Application(
    broker_address=setting("BROKER"),
    consumer_group=setting("GROUP"),
    auto_offset_reset="earliest",
    commit_interval=1.0,
    state_dir=setting("FOLDER"),
    loglevel="INFO",
)
models = Models()
store = FeatureStore(repo_path=setting("FEAST")) if setting("FEAST") else None
service = store.get_feature_service(SERVICE) if store else None


def windows(payment, state):
    """Add the account's counts and sums before this payment, then count it.

    The state is a list of minutes that have something, latest first: minute, count, sum.
    """
    now = int(datetime.fromisoformat(payment["at"]).timestamp()) // 60
    minutes = [m for m in state.get("minutes", []) if m[0] > now - MINUTES]
    recent = [m for m in minutes if m[0] > now - 5]
    payment["windows"] = [
        sum(m[1] for m in recent),
        sum(m[1] for m in minutes),
        sum(m[2] for m in recent),
        sum(m[2] for m in minutes),
    ]
    mine = next((m for m in minutes if m[0] == now), None)
    if mine is None:
        mine = [now, 0, 0.0]
        minutes.insert(0, mine)
    mine[1] += 1
    mine[2] += payment["amount"]
    state.set("minutes", minutes)
    return payment


def batch_features(payment):
    """Read the account's batch features."""
    rows = [{"account": payment["account"]}]
    return habits(store.get_online_features(features=service, entity_rows=rows))


def predict(payment):
    """Score a payment."""
    read = batch_features(payment) if store else NO_HABITS
    row = [*chain([payment["amount"], payment["items"]], payment["windows"], read)]
    head = {"account": payment["account"], "event_time": payment["at"]}
    return head | models.predict(row)


payments = app.topic(setting("EVENTS"), value_deserializer="json")
results = app.topic(setting("RESULTS"), value_serializer="json")
app.dataframe(payments).apply(windows, stateful=True).apply(predict).to_topic(results)

if __name__ == "__main__":
    app.run()

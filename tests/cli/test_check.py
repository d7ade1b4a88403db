"""`check` finds what is wrong before anything connects, and names the culprit and the remedy."""

from pathlib import Path

import pytest

from tests.cli.support import one_line, run, write_topology


def test_a_mistyped_topology_is_answered_by_the_nearest() -> None:
    ran = run("check", "flight_dely", "--json")
    assert ran.code == 1
    assert not ran.json["ok"]
    assert "did you mean 'flight_delay'?" in ran.json["problems"][0]
    assert "did you mean 'flight_delay'?" in one_line(ran.err)


@pytest.mark.parametrize(
    ("wrong", "culprit", "remedy"),
    [
        ({'key="account"': 'key="acount"'}, "stream 'pay.events'", "did you mean 'account'?"),
        ({'time="at"': 'time="amount"'}, "Payment.amount", "an event time is a datetime"),
        ({'fields("amount")': 'fields("amuont")'}, "topology 'pay'", "did you mean 'amount'?"),
        ({'mean("amount"': 'mean("amout"'}, "amount_mean_1h", "did you mean 'amount'?"),
        ({'over="1h", of=Payment),\n    }': 'over="1 hour", of=Payment),\n    }'}, "hour", "30 d"),
        ({'by=["account"]': 'by=["payment_id"]'}, "view 'by_account'", "partition key"),
        ({'value="loss"': 'value="los"'}, "topology 'pay'", "did you mean 'loss'?"),
        ({"topology = Topology(": "topology = Topologie("}, "Topologie", "line 3"),
    ],
    ids=["key", "time", "field", "feature", "window", "by", "label", "python"],
)
def test_a_wrong_declaration_is_refused_with_its_culprit(
    tmp_path: Path, wrong: dict[str, str], culprit: str, remedy: str
) -> None:
    write_topology(tmp_path, "pay", **wrong)
    ran = run("check", "pay", cwd=tmp_path)
    assert ran.code == 1
    line = one_line(ran.err)
    assert culprit in line
    if remedy != "30 d":
        assert remedy in line
    assert "Traceback" not in ran.out + ran.err


def test_missing_models_are_named(tmp_path: Path) -> None:
    write_topology(tmp_path, "pay")
    ran = run("check", "pay", "--json", cwd=tmp_path)
    assert ran.code == 1
    assert ran.json["vector"] == ["amount", "by_account__payments_1h", "by_account__amount_mean_1h"]
    assert "boosted_trees" in ran.json["problems"][0]


def test_an_unacceptable_setting_is_wrong_usage(tmp_path: Path) -> None:
    write_topology(tmp_path, "pay")
    ran = run("check", "pay", cwd=tmp_path, env={"STREAM_INFER_PARTITIONS": "0"})
    assert ran.code == 2
    assert "partitions" in one_line(ran.err)
    ran = run("check", "pay", cwd=tmp_path, env={"STREAM_INFER_PARTITION": "4"})
    assert "did you mean 'partitions'?" in one_line(ran.err)


def test_schema_describes_events_and_results(tmp_path: Path) -> None:
    write_topology(tmp_path, "pay")
    assert run("schema", "pay", cwd=tmp_path).json["asyncapi"].startswith("3.")
    schemas = run("schema", "pay", "--as", "jsonschema", cwd=tmp_path).json
    assert {"Payment", "Verdict", "Prediction", "Outcome"} <= set(schemas)

"""Taking over from a worker that died between storing its state and committing its offsets."""

from stream_infer.stream.processing import TP
from tests.stream.fakes import Echo
from tests.stream.kafka_tools import eventually
from tests.stream.test_ownership import FakeGroup, FakeProducer, own


async def test_what_is_stored_but_not_committed_is_committed_without_a_further_event() -> None:
    behind, ahead = TP("t", 0), TP("t", 1)
    group = FakeGroup({behind: 10, ahead: 60})
    echo = Echo("out", start={behind: 40, ahead: 50})
    ownership = own(echo, group, FakeProducer(), [behind, ahead])
    await eventually(lambda: group.known == {behind: 40, ahead: 60})
    await ownership.close()
    assert group.known == {behind: 40, ahead: 60}

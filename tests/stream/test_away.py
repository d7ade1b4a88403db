"""What a worker knows of its own results when it takes a partition again."""

from stream_infer.stream.away import Published


def test_pairs_went_with_their_results_unless_they_were_held_back() -> None:
    together = Published(emit_from=(10,), pairs_from=(10,))
    assert together.pairs_when((10,)) == (10,)
    assert together.pairs_when((17,)) == (17,)  # Kafka has more than was heard of
    held_back = Published(emit_from=(10,), pairs_from=(4,))
    assert held_back.pairs_when((17,)) == (4,)


def test_pairs_are_held_back_for_each_stream_by_itself() -> None:
    assert Published((10, 20), (4, 20)).pairs_when((12, 25)) == (4, 25)

"""Laws of the ledger."""

from hypothesis import given
from hypothesis import strategies as st

from fedpress.server.messaging.ledger import Ledger, LedgerEntry, Totals

entries = st.builds(
    LedgerEntry,
    round=st.integers(1, 5),
    node=st.sampled_from("abc"),
    direction=st.sampled_from(["up", "down"]),
    purpose=st.sampled_from(["train", "evaluate"]),
    frame=st.integers(0, 2**40),
    message=st.integers(0, 2**40),
    plain=st.integers(0, 2**40),
)


@given(st.lists(entries, max_size=40))
def test_a_ledger_returns_its_entries_and_their_totals(written: list[LedgerEntry]) -> None:
    ledger = Ledger()
    for entry in written:
        ledger.add(entry)
    assert list(ledger) == written
    assert len(ledger) == len(written)
    for where in ({}, {"round": 3}, {"direction": "up"}, {"round": 2, "direction": "down", "purpose": "train"}):
        chosen = [e for e in written if all(getattr(e, k) == v for k, v in where.items())]
        totals = ledger.totals(**where)
        assert totals == Totals(
            sum(e.frame for e in chosen), sum(e.message for e in chosen), sum(e.plain for e in chosen)
        )
    nodes = ledger.by_node()
    assert sum(t.frame for ways in nodes.values() for t in ways.values()) == ledger.totals().frame


def test_a_ratio_is_float32_over_frames() -> None:
    assert Totals(10, 12, 40).ratio == 4
    assert Totals().ratio == 1

"""Values that somebody else wrote: whole and of a depth that can be shown, or ValueError."""

from __future__ import annotations

import msgpack
import pytest

from rfs import foreign, peer_messages
from rfs.errors import PeerProtocolError


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def test_what_is_too_deep_is_none() -> None:
    assert foreign.from_json(nested(foreign.DEPTH_MAX)) is not None
    for levels in (foreign.DEPTH_MAX + 1, 900, 100_000):
        with pytest.raises(ValueError, match="deep"):
            foreign.from_json(nested(levels))
    for levels in (foreign.DEPTH_MAX + 1, 900, 5000):
        with pytest.raises(ValueError):
            foreign.from_msgpack(b"\x91" * levels + b"\xc0")


@pytest.mark.parametrize("data", [b"", b"\x91", b"\xc1", b"\x81\x91\x01\x01", b"\xd9\x01\xff", b"\x01\x01"])
def test_what_is_no_msgpack_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        foreign.from_msgpack(data)


def test_numbers_that_json_may_hold_and_int_does_not_take() -> None:
    assert (foreign.whole("7"), foreign.moment(1.5)) == (7, 1.5)
    for text in ("Infinity", "-Infinity", "NaN", "1e999"):
        with pytest.raises(ValueError):
            foreign.whole(foreign.from_json(text))
        with pytest.raises(ValueError):
            foreign.moment(foreign.from_json(text))
    with pytest.raises(ValueError):
        foreign.moment(10**400)


def test_a_refusal_can_be_said_however_deep_the_message_was() -> None:
    """It was shown with `repr`, which needs a level of the stack for each of the value's."""
    kind = msgpack.packb("type")
    for value in (b"\x91" * 600 + b"\xc0", b"\x81\xa1a" * 600 + b"\xc0"):
        with pytest.raises(PeerProtocolError):
            peer_messages.decode(b"\x81" + kind + value)

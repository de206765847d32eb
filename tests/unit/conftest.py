"""What several unit tests stand on."""

import pytest
import trio


@pytest.fixture
def no_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    """pyfuse3 needs the real engine."""

    async def run(engine: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr("rfs.relay.run", run)

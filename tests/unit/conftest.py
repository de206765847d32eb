"""What several unit tests stand on."""

import pytest
import trio

from orchestrator import ownership


@pytest.fixture(autouse=True)
def top_of_trust(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directories of tests are below /tmp, where everybody may make names: what counts begins below it."""
    monkeypatch.setattr(ownership, "TOP", tmp_path_factory.getbasetemp().parent)


@pytest.fixture
def no_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    """pyfuse3 needs the real engine."""

    async def run(engine: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr("rfs.relay.run", run)

"""What a restart after a crash must not take for a change."""

from __future__ import annotations

import pytest

from tests.faults.scene import Scene

pytestmark = [pytest.mark.mount]


def test_a_sole_owner_with_an_empty_directory_resumes_after_a_crash(scene: Scene) -> None:
    """Its own dead mount is not another disk."""
    primary = scene.begin()
    secondary = scene.other(primary)
    assert not list(primary.directories[1].iterdir())
    secondary.call("unmount")
    primary.until(link="alone")
    primary.kill()
    scene.application.stop()
    primary.start()
    primary.until(link="alone", role="primary")
    scene.settle(takeover=False)

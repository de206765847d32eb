"""The directory of keys: private, whole at every moment, and what counts after each change."""

import errno
import os
import random
import ssl
import stat
from pathlib import Path

import pytest

from rfs import certificates, keys
from rfs.errors import SaidNo
from rfs.keys import FORMER, IDENTITY, NEXT, TRUST, KeyStore
from tests.unit.keyring import make_keys, pair_keys, paired_keys


def test_nobody_else_can_read_them(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        one, _ = paired_keys(tmp_path)
        one.make("node1", name=NEXT)
    finally:
        os.umask(old)
    assert stat.S_IMODE(one.directory.stat().st_mode) == 0o700
    for path in one.directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


@pytest.mark.parametrize("name", [IDENTITY, TRUST])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, name: str) -> None:
    one, _ = paired_keys(tmp_path)
    (one.directory / name).chmod(0o644)
    with pytest.raises(SaidNo, match="chmod 600"):
        one.own() if name == IDENTITY else one.trust()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cluster": "x"}', '{"cluster": "x", "peers": {"a": [{}]}, "revoked": []}'])
def test_damaged_trust_is_one_sentence(tmp_path: Path, text: str) -> None:
    one, _ = paired_keys(tmp_path)
    (one.directory / TRUST).write_text(text)
    with pytest.raises(SaidNo, match="damaged"):
        one.trust()


def test_a_disk_that_says_no_is_one_sentence_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    store = KeyStore(tmp_path / "keys")
    with pytest.raises(SaidNo, match="cannot be written"):
        store.make("node1")
    assert [path.name for path in store.directory.iterdir()] == ["lock"]


def test_a_key_is_made_once_and_never_shown(tmp_path: Path) -> None:
    one = make_keys(tmp_path, "node1")
    own = one.own()
    assert one.make("node1").known == own.known and len(one.trust().cluster) == 32
    assert "PRIVATE" in own.private and "PRIVATE" not in repr(own)
    with pytest.raises(SaidNo, match="cannot be a node's name"):
        KeyStore(tmp_path / "other").make("no/name")


def test_only_a_peers_own_certificate_is_pinned(tmp_path: Path) -> None:
    one, two = make_keys(tmp_path, "node1"), make_keys(tmp_path, "node2")
    certificate = two.own().known.certificate
    with pytest.raises(ValueError, match="where one of 'node3'"):
        one.pin("node3", certificate)
    with pytest.raises(ValueError):
        one.pin("node2", certificate.replace("MII", "MIJ", 1))
    with pytest.raises(ValueError, match="more than 8 KiB"):
        one.pin("node2", certificate + " " * 9000)
    assert one.pin("node2", certificate).pin == two.own().known.pin
    assert [pinned.pin for pinned in one.trust().of("node2")] == [two.own().known.pin]


def test_a_rotation_has_two_keys_for_a_while(tmp_path: Path) -> None:
    one, two = paired_keys(tmp_path)
    before = two.own().known.pin
    staged = two.make("node2", name=NEXT)
    assert {own.known.pin for own in two.every_own()} == {before, staged.known.pin}
    one.pin("node2", staged.known.certificate)
    assert [pinned.pin for pinned in one.trust().of("node2")] == [before, staged.known.pin]
    one.proven("node2", before)
    assert len(one.trust().of("node2")) == 2, "the old key in use proves nothing"
    assert two.activate_next().known.pin == staged.known.pin and (two.directory / FORMER).exists()
    one.proven("node2", staged.known.pin)
    assert [pinned.pin for pinned in one.trust().of("node2")] == [staged.known.pin]
    two.drop_former()
    assert [own.known.pin for own in two.every_own()] == [staged.known.pin]


def test_a_rotation_that_was_cut_short_loses_nothing(tmp_path: Path) -> None:
    one, two = paired_keys(tmp_path)
    used = two.own().known.pin
    staged = two.make("node2", name=NEXT)
    one.pin("node2", staged.known.certificate)
    assert two.make("node2", name=NEXT).known == staged.known, "tried again, it is the same key"
    (two.directory / NEXT).unlink()
    other = two.make("node2", name=NEXT)
    one.pin("node2", other.known.certificate)
    assert [pinned.pin for pinned in one.trust().of("node2")] == [used, other.known.pin]


def test_a_revoked_key_stays_revoked(tmp_path: Path) -> None:
    one, two = paired_keys(tmp_path)
    assert one.forget("node2") == 1 and one.trust().of("node2") == ()
    assert one.forget("node2") == 0
    with pytest.raises(ValueError, match="revoked"):
        one.pin("node2", two.own().known.certificate)
    fresh = two.make("node2", name=NEXT)
    one.pin("node2", fresh.known.certificate)
    assert [pinned.pin for pinned in one.trust().of("node2")] == [fresh.known.pin]


def test_what_was_replaced_is_revoked_with_the_rest(tmp_path: Path) -> None:
    """A session goes on under the key that it began with: to revoke a node is to revoke that one, too."""
    one, two = paired_keys(tmp_path)
    old = two.own().known.pin
    one.pin("node2", two.make("node2", name=NEXT).known.certificate)
    one.proven("node2", two.activate_next().known.pin)
    one.forget("node2")
    assert set(one.trust().revoked) == {old, two.own().known.pin}
    with pytest.raises(ValueError, match="does not count"):
        one.pin("node2", two.make("node2", name=NEXT).known.certificate, under=two.own().known.pin)


def test_a_strangers_certificate_is_a_value_error(tmp_path: Path) -> None:
    """Whatever the library makes of it."""
    one, chance = make_keys(tmp_path, "node1"), random.Random(4)
    good = ssl.PEM_cert_to_DER_cert(make_keys(tmp_path, "node2").own().known.certificate)
    for _ in range(400):
        der = bytearray(good)
        for _ in range(chance.randrange(1, 4)):
            der[chance.randrange(len(der))] = chance.randrange(256)
        if bytes(der) != good:
            with pytest.raises(ValueError):
                one.pin("node2", ssl.DER_cert_to_PEM_cert(bytes(der)))
    assert not one.trust().peers


def test_both_nodes_see_the_same_words(tmp_path: Path) -> None:
    one, two = paired_keys(tmp_path)
    pins = [one.own().known.pin, two.own().known.pin]
    shown = {keys.fingerprint(store.trust().cluster, order) for store in (one, two) for order in (pins, pins[::-1])}
    assert len(shown) == 1
    (words,) = shown
    assert len(words.split("-")) == 4 and all(len(word) == 5 for word in words.split("-"))
    assert keys.fingerprint("another", pins) != words
    assert keys.words(bytes.fromhex("7f000001ffff0000")) == "lusab-babad-zuzuz-babab"


def test_expiry_is_an_alarm() -> None:
    assert keys.expiry_alarm("node node1", 10**10, 0) == ""
    assert "expires in 29 days" in keys.expiry_alarm("node node1", 100 * 86400, 70.5 * 86400)
    assert "has expired" in keys.expiry_alarm("node node1", 100, 200)


def test_both_ends_agree_on_a_secret(tmp_path: Path) -> None:
    one, two = paired_keys(tmp_path)
    other = make_keys(tmp_path, "node3").own()
    shared = certificates.agree(one.own().private, two.own().known.certificate)
    assert shared == certificates.agree(two.own().private, one.own().known.certificate) and len(shared) == 32
    assert shared != certificates.agree(other.private, two.own().known.certificate)
    pair_keys(one, two)
    assert len(one.trust().of("node2")) == 1, "pairing again with the same key changes nothing"

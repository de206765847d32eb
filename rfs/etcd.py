"""etcd's JSON gateway: values with their revisions, one compare-and-swap, keys that live as long as a lease. No policy.

Several endpoints are one witness: the one that answered last is asked first, the next one when it does not answer in time. A request that
got no answer may have been carried out, or may be later: whoever asks must be able to live with both.
"""

import base64
import json
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import h11
import trio

from rfs.etcd_endpoint import Endpoint
from rfs.foreign import from_json

REQUEST_TIMEOUT_S: Final = 1.5  # for each endpoint
ANSWER_BYTES_MAX: Final = 256 * 1024


class WitnessSilent(Exception):
    """No endpoint gave an answer that counts; the text is the part of a sentence that says why."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A key's value and the revision that wrote it; 0 and nothing when there is no such key."""

    value: bytes = b""
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Swapped:
    """What became of a compare-and-swap: whether it was done, what the key holds now, and which keys that had to be absent are there."""

    done: bool
    stored: Stored
    in_the_way: tuple[str, ...] = ()


class Etcd:
    """See the module's text."""

    def __init__(self, endpoints: Sequence[Endpoint], ca_file: str = "") -> None:
        self.endpoints = list(endpoints)
        self._ca_file = ca_file

    async def get(self, key: str) -> Stored:
        """As the majority knows it."""
        return _first(await self._call("kv/range", {"key": _b64(key)}))

    async def exists(self, key: str) -> bool:
        """Is the key there?"""
        return (await self.get(key)).revision != 0

    async def swap(self, key: str, expected: Stored, value: bytes, absent: Sequence[str] = ()) -> Swapped:
        """Write `value` if the key is as expected and none of `absent` exists: one transaction.

        Values are never written twice, so a value of ours that is found there was written by a request of ours whose answer was lost."""
        compare: list[dict[str, Any]] = [
            {"key": _b64(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(expected.revision)},
            *({"key": _b64(other), "target": "VERSION", "result": "EQUAL", "version": "0"} for other in absent),
        ]
        if expected.revision:  # a witness that was set up anew counts its revisions from the start
            compare.append({"key": _b64(key), "target": "VALUE", "result": "EQUAL", "value": _b64(expected.value)})
        looks = [{"request_range": {"key": _b64(other)}} for other in (key, *absent)]
        write = {"request_put": {"key": _b64(key), "value": _b64(value)}}
        answer = await self._call("kv/txn", {"compare": compare, "success": [write], "failure": looks})
        if answer.get("succeeded") is True:
            return Swapped(True, Stored(value, _number(answer.get("header"), "revision")))
        found = [_first(_part(part, "response_range")) for part in _list(answer, "responses")]
        if len(found) != len(looks):
            raise WitnessSilent("an answer that is none of etcd's")
        blocking = tuple(other for other, there in zip(absent, found[1:], strict=True) if there.revision)
        return Swapped(found[0].value == value, found[0], blocking)

    # ---- leases -------------------------------------------------------------------------------------------------------------------------

    async def grant_lease(self, seconds: int) -> int:
        """A new lease's number."""
        return _number(await self._call("lease/grant", {"TTL": str(seconds)}), "ID")

    async def keep_lease(self, lease: int) -> bool:
        """Renew it; False when it has run out."""
        answer = await self._call("lease/keepalive", {"ID": str(lease)})
        return _number(_part(answer, "result"), "TTL", missing=0) > 0

    async def revoke_lease(self, lease: int) -> None:
        """End it, and every key that lives by it."""
        await self._call("lease/revoke", {"ID": str(lease)})

    async def put(self, key: str, value: bytes, lease: int) -> None:
        """Write a key that lives as long as the lease."""
        await self._call("kv/put", {"key": _b64(key), "value": _b64(value), "lease": str(lease)})

    # ---- one request --------------------------------------------------------------------------------------------------------------------

    async def _call(self, method: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask one endpoint after the other; the first that answers is asked first from then on."""
        reasons = []
        for endpoint in list(self.endpoints):
            try:
                with trio.fail_after(REQUEST_TIMEOUT_S):
                    answer = await self._ask(endpoint, method, json.dumps(body).encode())
            except WitnessSilent as silent:
                reasons.append(f"{endpoint}: {silent}")
            except trio.TooSlowError:
                reasons.append(f"{endpoint}: no answer within {REQUEST_TIMEOUT_S:g} s")
            except (
                OSError,
                trio.BrokenResourceError,
                h11.RemoteProtocolError,
                UnicodeError,
            ) as failure:  # the last: a host that is no name
                reasons.append(f"{endpoint}: {_in_words(failure)}")
            else:
                self.endpoints.remove(endpoint)
                self.endpoints.insert(0, endpoint)
                return answer
        raise WitnessSilent("; ".join(reasons))

    async def _ask(self, endpoint: Endpoint, method: str, body: bytes) -> Mapping[str, Any]:
        connection = await trio.open_tcp_stream(endpoint.host, endpoint.port)
        stream: trio.abc.Stream = connection
        try:
            if endpoint.secure:
                stream = trio.SSLStream(connection, self._context(), server_hostname=endpoint.host, https_compatible=True)
            status, answer = await _exchange(stream, endpoint, method, body)
        finally:
            await trio.aclose_forcefully(connection)
        try:
            found = from_json(answer)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise WitnessSilent(f"it answers with {status} and no JSON: is that etcd's client port?")
        if status != 200:
            raise WitnessSilent(f"it says '{str(found.get('message') or found.get('error'))[:200]}' ({status})")
        return found

    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self._ca_file or None)


async def _exchange(stream: trio.abc.Stream, endpoint: Endpoint, method: str, body: bytes) -> tuple[int, bytes]:
    connection = h11.Connection(h11.CLIENT)
    headers = [
        ("Host", f"{endpoint.host}:{endpoint.port}"), ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))), ("Connection", "close"),
    ]  # fmt: skip
    request = h11.Request(method="POST", target=f"/v3/{method}", headers=headers)
    await stream.send_all(b"".join(connection.send(event) or b"" for event in (request, h11.Data(data=body), h11.EndOfMessage())))
    status, answer = 0, bytearray()
    while True:
        match connection.next_event():
            case h11.NEED_DATA:
                received = bytes(await stream.receive_some())
                if not received and not status:
                    raise WitnessSilent("it hangs up without an answer")
                connection.receive_data(received)
            case h11.Response() as response:
                status = response.status_code
            case h11.Data() as data:
                answer += data.data
                if len(answer) > ANSWER_BYTES_MAX:
                    raise WitnessSilent("an answer without end")
            case h11.EndOfMessage():
                return status, bytes(answer)


def _in_words(failure: Exception) -> str:
    """The innermost cause: trio wraps what the network said."""
    inner: BaseException = failure
    while isinstance(inner, BaseExceptionGroup) or inner.__cause__ is not None:
        inner = inner.exceptions[0] if isinstance(inner, BaseExceptionGroup) else inner.__cause__ or inner
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({inner.verify_message})"
    return (inner.strerror if isinstance(inner, OSError) and inner.strerror else str(inner)) or type(inner).__name__


# ---- what etcd's gateway says: numbers are texts, and a zero or an empty list is left out -----------------------------------------------


def _b64(value: str | bytes) -> str:
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()


def _number(answer: object, name: str, missing: int | None = None) -> int:
    found = answer.get(name, missing) if isinstance(answer, dict) else None
    try:
        return int(str(found))
    except ValueError:
        raise WitnessSilent(f"an answer without '{name}': that is none of etcd's") from None


def _part(answer: object, name: str) -> Mapping[str, Any]:
    found = answer.get(name) if isinstance(answer, Mapping) else None
    if not isinstance(found, dict):
        raise WitnessSilent(f"an answer without '{name}': that is none of etcd's")
    return found


def _list(answer: Mapping[str, Any], name: str) -> list[Any]:
    found = answer.get(name, [])
    if not isinstance(found, list):
        raise WitnessSilent(f"an answer without '{name}': that is none of etcd's")
    return found


def _first(answer: Mapping[str, Any]) -> Stored:
    """The one key of a range."""
    found = _list(answer, "kvs")
    if not found:
        return Stored()
    try:
        value = base64.b64decode(str(found[0].get("value", "")))
    except (AttributeError, ValueError):
        raise WitnessSilent("a value that is none of etcd's") from None
    return Stored(value, _number(found[0], "mod_revision"))

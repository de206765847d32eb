"""Does a web server answer as it should: with a status that is expected, a text in its answer, a certificate that is believed?

One GET for every look, over a connection of its own. Redirections are answers, and are not followed.
"""

from __future__ import annotations

import ssl

import h11
import trio

from orchestrator.checkers.checker import Finding
from orchestrator.checkers.one_thread import OneThread
from orchestrator.checkers.targets import parse_status, parse_url
from orchestrator.checkers.tcp import connect, why_not

RECEIVE_BYTES = 1 << 16
BODY_BYTES_MAX = 1 << 20  # a text that is expected must stand in the first of it


class HttpChecker:
    """Up while the answer is as it should be."""

    def __init__(
        self,
        url: str,
        status: tuple[str, ...] = ("2xx", "3xx"),
        text: str | None = None,
        host: str | None = None,
        ca: str | None = None,
        verify: bool = True,
    ) -> None:
        self.written, self.url = url, parse_url(url)
        self.expected, self.statuses = [parse_status(each) for each in status], ", ".join(status)
        self.text, self.host, self.ca, self.verify = text, host or self.url.authority, ca, verify
        self.name = host.partition(":")[0] if host else self.url.endpoint.host  # what the certificate must be for
        self._thread = OneThread()

    async def look(self) -> Finding:
        """Ask once."""
        try:
            status, body = await self._ask()
        except (OSError, h11.RemoteProtocolError, trio.BrokenResourceError) as error:
            return Finding(False, self._trouble(error.__cause__ if isinstance(error, trio.BrokenResourceError) else error))
        if not any(status in expected for expected in self.expected):
            return Finding(False, f"{self.written} answers {status}, which is not {self.statuses}")
        if self.text is not None and self.text.encode() not in body:
            return Finding(False, f'{self.written} answers {status}, without the text "{self.text}"')
        return Finding(True, f"{self.written} answers {status}")

    def _trouble(self, error: BaseException | None) -> str:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"{self.written}: its certificate is not believed: {error.verify_message}"
        if isinstance(error, ssl.SSLError):
            return f"{self.written} speaks no TLS: {error.reason or error}"
        if isinstance(error, OSError):
            return why_not(self.url.endpoint, error)
        return f"{self.written} answers no HTTP: {error or 'it hangs up'}"

    async def changed(self) -> None:
        """Nobody tells."""
        await trio.sleep_forever()

    async def _ask(self) -> tuple[int, bytes]:
        sock = await connect(self.url.endpoint, self._thread)
        plain = trio.SocketStream(sock)
        try:
            stream: trio.abc.Stream = plain
            if self.url.secure:
                context = await self._thread.run(self._trust)  # on a file system that hangs as well
                stream = trio.SSLStream(plain, context, server_hostname=self.name, https_compatible=True)
            return await converse(stream, self.host, self.url.target)
        finally:
            await trio.aclose_forcefully(plain)

    def _trust(self) -> ssl.SSLContext:
        """Read anew for every look: certificates are renewed (blocking)."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            raise OSError(error.errno, f"{self.ca} cannot be read: {error.strerror or error}") from None
        if not self.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context


async def converse(stream: trio.abc.Stream, host: str, target: str) -> tuple[int, bytes]:
    """One request; the status and the beginning of the body."""
    connection = h11.Connection(h11.CLIENT)
    headers = [("host", host), ("user-agent", "lockstep"), ("accept", "*/*"), ("connection", "close")]
    data = connection.send(h11.Request(method="GET", target=target, headers=headers)) or b""
    await stream.send_all(data + (connection.send(h11.EndOfMessage()) or b""))
    status, body = 0, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(RECEIVE_BYTES)))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) >= BODY_BYTES_MAX:
                return status, bytes(body)
        elif isinstance(event, h11.InformationalResponse):
            continue
        else:
            return status, bytes(body)

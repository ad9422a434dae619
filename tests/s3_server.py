"""An S3 server of one's own on this machine: moto's, which can be away or refuse calls."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from uuid import uuid4

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from tests.free_port import free_port

BUSY = b"<Error><Code>InternalError</Code><Message>try again</Message></Error>"


class _Quiet(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        pass


class S3Server:
    """A server with one bucket; use it in a ``with`` block. What it holds outlives ``stop``.

    Args:
        address: Where it listens.

    Attributes:
        bucket: The bucket's name.
        refused_share: Share of the calls that are answered with an error.
        calls: The calls so far, each as its method and path.
        refused: How many of them were refused.
    """

    def __init__(self, address: str = "127.0.0.1") -> None:
        self._address = address
        self.bucket = f"bucket-{uuid4().hex[:12]}"
        self.refused_share, self.refused = 0.0, 0
        self.calls: list[tuple[str, str]] = []
        self._app = DomainDispatcherApplication(create_backend_app)
        self._lock, self._dice = threading.Lock(), random.Random(7)
        self._server: BaseWSGIServer | None = None
        self._port = free_port()

    def __enter__(self) -> S3Server:
        self.start()
        self._client().create_bucket(Bucket=self.bucket)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begins to answer, if it does not yet."""
        if not self.is_away:
            return
        server = self._bound()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self._server = server

    def _bound(self) -> BaseWSGIServer:
        """Returns a server on the port, which may be taken for a moment after a stop."""
        until = time.monotonic() + 30
        while True:
            try:
                return make_server(
                    self._address, self._port, self._answer, threaded=True, request_handler=_Quiet
                )
            except SystemExit:  # werkzeug's answer to a port that is taken
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def stop(self) -> None:
        """Takes no more connections, as a machine that is restarted."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    @property
    def is_away(self) -> bool:
        """Whether it was stopped."""
        return self._server is None

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead S3's clients here."""
        return {
            "AWS_ENDPOINT_URL": f"http://{self._address}:{self._port}",
            "AWS_ACCESS_KEY_ID": "a-key-that-nobody-has",
            "AWS_SECRET_ACCESS_KEY": "a-secret-that-nobody-knows",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def url(self, prefix: str = "runs") -> str:
        """The URL of a folder in the bucket."""
        return f"s3://{self.bucket}/{prefix}"

    def keys(self, prefix: str = "") -> list[str]:
        """The names of what the bucket holds."""
        found = self._client().list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return [about["Key"] for about in found.get("Contents", [])]

    def uploads(self) -> int:
        """How many uploads in parts were begun and not ended."""
        found = self._client().list_multipart_uploads(Bucket=self.bucket)
        return len(found.get("Uploads", []))

    def put(self, key: str, content: bytes) -> None:
        """Puts an object into the bucket."""
        self._client().put_object(Bucket=self.bucket, Key=key, Body=content)

    def _client(self) -> Any:
        environment = self.environment
        return boto3.client(
            "s3",
            endpoint_url=environment["AWS_ENDPOINT_URL"],
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            region_name=environment["AWS_DEFAULT_REGION"],
        )

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        with self._lock:
            self.calls.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
            is_refused = self._dice.random() < self.refused_share
            self.refused += is_refused
        if is_refused:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start("500 Internal Server Error", [("Content-Type", "application/xml")])
            return [BUSY]
        answer: Iterable[bytes] = self._app(environ, start)
        return answer

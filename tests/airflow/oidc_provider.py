"""An OpenID provider for tests, with the code flow: discovery, keys, authorisation with PKCE, tokens, userinfo. Whoever asks is logged in."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

CLIENT, SECRET = "airflow", "a secret of the provider and Airflow"


class Provider:
    """What it knows: who is at the browser, by the claims of the ID token and of userinfo; and how it misbehaves."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self.claims: dict[str, Any] = {}
        self.userinfo: dict[str, Any] = {}
        self.forged: dict[str, Any] = {}
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.signs_with = self.key
        self.codes: dict[str, dict[str, str]] = {}

    def logs_in(self, claims: dict[str, Any], userinfo: dict[str, Any] | None = None) -> None:
        """The next person, and no misbehaviour."""
        self.claims, self.userinfo = claims, {"sub": claims["sub"], **(userinfo or {})}
        self.forged, self.signs_with = {}, self.key

    def discovery(self) -> dict[str, Any]:
        there = {name: f"{self.issuer}/{name}" for name in ("authorize", "token", "userinfo", "jwks")}
        return {
            "issuer": self.issuer,
            "authorization_endpoint": there["authorize"],
            "token_endpoint": there["token"],
            "userinfo_endpoint": there["userinfo"],
            "jwks_uri": there["jwks"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "response_types_supported": ["code"],
        }

    def jwks(self) -> dict[str, Any]:
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return {"keys": [{**public, "kid": "1", "use": "sig", "alg": "RS256"}]}

    def authorize(self, asked: dict[str, str]) -> str:
        """Back to the client, with a code."""
        assert asked["client_id"] == CLIENT and asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe()
        self.codes[code] = asked
        answer = urllib.parse.urlencode({"code": code, "state": asked["state"]})
        return f"{asked['redirect_uri']}?{answer}"

    def token(self, asked: dict[str, str], log_in: str) -> dict[str, Any]:
        """For a code, once, to whoever began with it."""
        assert base64.b64decode(log_in.removeprefix("Basic ")).decode() == f"{CLIENT}:{SECRET}"
        began = self.codes.pop(asked["code"])
        proof = hashlib.sha256(asked["code_verifier"].encode()).digest()
        assert began["code_challenge"] == base64.urlsafe_b64encode(proof).rstrip(b"=").decode()
        assert began["redirect_uri"] == asked["redirect_uri"]
        now = int(time.time())
        claims = {
            "iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 60, "nonce": began["nonce"],
            **self.claims, **self.forged,
        }  # fmt: skip
        signed = jwt.encode(claims, self.signs_with, algorithm="RS256", headers={"kid": "1"})
        return {"access_token": "opaque", "token_type": "Bearer", "expires_in": 60, "id_token": signed}


@contextmanager
def provider() -> Iterator[Provider]:
    """One that listens on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            if path == "/authorize":
                self.send_response(302)
                self.send_header("Location", made.authorize(dict(urllib.parse.parse_qsl(query))))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            known = {
                "/.well-known/openid-configuration": made.discovery,
                "/jwks": made.jwks,
                "/userinfo": lambda: made.userinfo,
            }
            self.answer(known[path]())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            assert self.path == "/token"
            self.answer(made.token(dict(urllib.parse.parse_qsl(body)), self.headers["Authorization"]))

        def answer(self, document: dict[str, Any]) -> None:
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Provider(f"http://127.0.0.1:{server.server_port}")
        Thread(target=server.serve_forever, daemon=True).start()
        yield made
        server.shutdown()

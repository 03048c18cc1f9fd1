"""Whether a request gets in: its token, the token's scope and limits, and what its body asks for.

The model server takes any signature and any number of rows; callers get `serving_default` alone, and no more rows than
their token has. What is doubtful is refused: a name twice in one object, or a key that Predict does not need.
"""

from __future__ import annotations

import json
from typing import Any

from reshelve.gateway.tokens import TokensFile

SIGNATURE = "serving_default"
_KEYS = {"inputs", "instances", "signature_name"}
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class NotAdmittedError(Exception):
    """Why a request does not get in: HTTP status and the text of the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status, self.text = status, text


class Admission:
    """Decides by the tokens as they are now."""

    def __init__(self, tokens: TokensFile) -> None:
        self._tokens = tokens

    def admit(self, authorization: str, ranker: str, body: bytes) -> str:
        """The name of the token. Raises NotAdmittedError: 401 no token of ours, 403 not for this ranker, 413 too large, 400 not what callers may ask."""
        scheme, _, text = authorization.partition(" ")
        token = self._tokens.current().find(text) if scheme == "Bearer" else None
        if token is None:
            raise NotAdmittedError(401, "Unauthorized: Authorization: Bearer <token>")
        if token.expired():
            raise NotAdmittedError(401, f"Unauthorized: the token {token.name} has expired")
        if token.rankers is not None and ranker not in token.rankers:
            raise NotAdmittedError(403, f"Forbidden: the token {token.name} is not for this ranker")
        limits = token.limits
        if len(body) > limits.body_kilobytes * 1024:
            raise NotAdmittedError(413, f"Too large: at most {limits.body_kilobytes} KB")
        rows = rows_of(body)
        if rows > limits.rows:
            raise NotAdmittedError(413, f"Too many rows: {rows}, at most {limits.rows} in one request")
        return token.name


def rows_of(body: bytes) -> int:
    """How many rows a Predict request has: the most values that one of its inputs has.

    Raises NotAdmittedError (400) for what is no Predict request of `serving_default`.
    """
    try:
        # As the model server reads it: bytes that are no UTF-8 are not refused.
        document = json.loads(
            body.removeprefix(_BYTE_ORDER_MARK).decode("utf-8", "surrogateescape"), object_pairs_hook=_object
        )
    except RecursionError:
        raise NotAdmittedError(400, "Bad request: nested too deeply") from None
    except ValueError as error:
        raise NotAdmittedError(400, f"Bad request: not JSON: {error}") from None
    if not isinstance(document, dict):
        raise NotAdmittedError(400, "Bad request: expected an object with `inputs` or `instances`")
    if document.get("signature_name", SIGNATURE) != SIGNATURE:
        raise NotAdmittedError(400, f"Bad request: signature_name: only {SIGNATURE} is served")
    if not document.keys() <= _KEYS:
        raise NotAdmittedError(
            400, "Bad request: expected no keys but `inputs`, `instances` and `signature_name`"
        )
    inputs, instances = document.get("inputs"), document.get("instances")
    return max(_most(inputs), _sum_of_rows(instances))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):  # which of them counts, parsers do not agree on
        raise ValueError("a name stands twice in one object")
    return made


def _sum_of_rows(instances: Any) -> int:
    return sum(map(_most, instances)) if isinstance(instances, list) else _most(instances)


def _most(inputs: Any) -> int:
    """Values of the largest input, out of an object of inputs or of a single one."""
    if isinstance(inputs, dict):
        return max(map(_values, inputs.values()), default=0)
    return _values(inputs)


def _values(value: Any) -> int:
    """Values in a list, however deep; without recursion, since callers choose the depth."""
    count, left = 0, [value]
    while left:
        one = left.pop()
        if isinstance(one, list):
            left += one
        else:
            count += 1
    return count

"""What a model server may answer in place of a prediction, each as a type: whose fault it is, and whether to ask again.

| error | says | asked again |
|---|---|---|
| BusyError | the server lives, all its threads were taken | yes, at another server at once |
| ServerAwayError | nothing answers at the address | yes, at another server at once |
| NothingServesError | this version or label is not there, or not yet | yes: elsewhere, or a moment later |
| VersionFailedError | an error inside the server while it answered | once at every other server |
| TooSlowError | the deadline is over | no |
| RequestRefusedError | the request does not fit the model | never |
"""

from __future__ import annotations

import grpc

from reshelve.errors import ConfigurationError, TryAgainError
from reshelve.protocol.busy import is_busy

_NO_LABEL = "Unrecognized servable version label"  # INVALID_ARGUMENT, and yet no fault of the request
_NO_SIGNATURE = "Serving signature key"  # of the FAILED_PRECONDITIONs the one that is the request's fault
_CODE = grpc.StatusCode


class ServerAwayError(TryAgainError):
    """Nothing answers at the address."""


class BusyError(TryAgainError):
    """The server lives and refused the request until its deadline: all its threads were taken."""


class TooSlowError(TryAgainError):
    """The server did not answer within the deadline."""


class NothingServesError(TryAgainError):
    """The server answers, but has not loaded this model, version or label."""


class VersionFailedError(TryAgainError):
    """The server met an error of its own, or of the version, while it answered."""


class RequestRefusedError(ConfigurationError):
    """The server says that the request does not fit the model."""


def typed_error(error: grpc.RpcError, address: str, what: str) -> TryAgainError | ConfigurationError:
    """Our error for gRPC's."""
    code, detail = error.code(), str(error.details())
    if is_busy(error):
        return BusyError(f"the model server at {address} is busy: it refused {what}", detail)
    if code is _CODE.DEADLINE_EXCEEDED:
        return TooSlowError(f"the model server at {address} did not answer in time", what)
    if code is _CODE.NOT_FOUND or detail.startswith(_NO_LABEL):
        return NothingServesError(f"the model server at {address} does not serve {what}", detail)
    if code in (_CODE.UNAVAILABLE, _CODE.CANCELLED):
        return ServerAwayError(
            f"the model server at {address} cannot be reached for {what}", f"{code.name}: {detail}"
        )
    if (
        code in (_CODE.INVALID_ARGUMENT, _CODE.OUT_OF_RANGE, _CODE.UNIMPLEMENTED)
        or code is _CODE.RESOURCE_EXHAUSTED  # a message over the limit
        or detail.startswith(_NO_SIGNATURE)
    ):
        return RequestRefusedError(f"the model server at {address} refused the request for {what}", detail)
    return VersionFailedError(
        f"the model server at {address} failed to answer {what}", f"{code.name}: {detail}"
    )

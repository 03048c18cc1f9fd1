"""What an object store says, as one of our errors: does a retry help (75), or must somebody change something (78)?

Stores agree on few words, so a code that is not known is judged by its HTTP status: of 4xx only those that time can
mend are tried again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from boto3.exceptions import Boto3Error
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError, LocationValueError

from reshelve.errors import ConfigurationError, ReshelveError, TryAgainError
from reshelve.settings import settings

CHECKSUM_SETTING = "AWS_REQUEST_CHECKSUM_CALCULATION=when_required"
PAGE = "docs/how-to/object-stores.md"

FAULTS = (boto.ClientError, boto.BotoCoreError, Boto3Error, HTTPError, ResponseParserError)
"""All that a call of boto3, or reading the body of its answer, raises for what a store does."""

MISSING = frozenset({"NoSuchKey", "NoSuchVersion"})
MISSING_KEY = MISSING | {
    "404",
    "NotFound",
}  # of answers without a word; with a body, it is no S3 store that says 404
MISSING_BUCKET = frozenset({"NoSuchBucket"})
NOT_KNOWN = frozenset({"501", "NotImplemented", "405", "MethodNotAllowed", "UnsupportedOperation"})
PRECONDITION = frozenset({"412", "PreconditionFailed"})

_ACCESS = (
    "AccessDenied", "AllAccessDisabled", "AccountProblem", "Forbidden", "403", "UnauthorizedAccess", "401",
    "Unauthorized", "NotSignedUp", "InvalidPayer",
)  # fmt: skip
_KEYS = (
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSecurity", "InvalidToken", "InvalidClientTokenId",
    "UnrecognizedClientException", "MissingSecurityHeader", "MissingAuthenticationToken", "CredentialsNotSupported",
)  # fmt: skip
_REGION = (
    "PermanentRedirect", "301", "MovedPermanently", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException",
    "InvalidLocationConstraint", "InvalidRegion", "IncorrectEndpoint",
)  # fmt: skip
_BUCKET = ("NoSuchBucket", "InvalidBucketName", "BucketAlreadyExists", "TooManyBuckets", "InvalidBucketState")
_HINTS = {
    **dict.fromkeys(
        _ACCESS, "these credentials lack permission: the store's policy must allow {action} there"
    ),
    **dict.fromkeys(_KEYS, "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or what stands for them)"),
    **dict.fromkeys(_REGION, "check AWS_DEFAULT_REGION and AWS_ENDPOINT_URL"),
    **dict.fromkeys(_BUCKET, "check RESHELVE_BUCKET; `reshelve check-store` makes one that is missing"),
    "404": "check AWS_ENDPOINT_URL: what answers there does not speak S3",
    **dict.fromkeys(NOT_KNOWN, f"the store does not support this call; what a store needs: {PAGE}"),
}
_AGAIN = {
    "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired", "RequestTimeTooSkewed",
    "SlowDown", "SlowDownRead", "SlowDownWrite", "ServiceUnavailable", "ServerBusy", "Busy", "InternalError", "InternalFailure",
    "InternalServerError", "RequestTimeout", "RequestTimeoutException", "Throttling", "ThrottlingException", "TooManyRequests",
    "TooManyRequestsException", "RequestLimitExceeded", "BandwidthLimitExceeded", "OperationAborted", "ConditionalRequestConflict",
    "TemporaryRedirect", "IncompleteBody", "BadDigest", "NoSuchUpload", "InvalidPart", "QuotaExceeded",
} | PRECONDITION | MISSING  # fmt: skip
_AGAIN_STATUS = {307, 404, 408, 409, 412, 416, 423, 425, 429}
_SAY_IT_ALL = {"304", "412", "429"}
_WAITS = {
    "RequestTimeTooSkewed": "this host's clock is wrong: synchronise it with NTP",
    "QuotaExceeded": "the store is full",
}

# What a store that is older than checksums in headers and trailers says of them: no two say the same.
_OF_CHECKSUMS = re.compile(
    r"checksum|trailer|aws-chunked|content-md5|x-amz-sdk|streaming-unsigned", re.IGNORECASE
)
_CHECKSUM_CODES = {
    "XAmzContentSHA256Mismatch",
    "MalformedTrailerError",
    "MissingContentLength",
    "411",
    "MissingContentMD5",
}
_SENDS_CHECKSUMS = {
    "PutObject",
    "UploadPart",
    "DeleteObjects",
    "CreateMultipartUpload",
    "CompleteMultipartUpload",
}

_LOCAL = (
    boto.NoCredentialsError, boto.PartialCredentialsError, boto.ProfileNotFound, boto.ConfigParseError, boto.ConfigNotFound,
    boto.InvalidConfigError, boto.BaseEndpointResolverError, boto.EndpointProviderError, boto.ParamValidationError,
    boto.ValidationError, boto.InvalidDNSNameError, boto.InvalidEndpointConfigurationError, boto.InvalidHostLabelError,
    boto.InvalidChecksumConfigError, boto.InvalidRetryConfigurationError, boto.InvalidProxiesConfigError, boto.InvalidDefaultsMode,
    boto.UnsupportedS3ArnError, boto.UnsupportedS3ConfigurationError, boto.UnsupportedS3AccesspointConfigurationError,
    boto.InvalidS3AddressingStyleError, boto.MissingDependencyException, boto.SSOError, boto.LoginError,
    boto.NoAuthTokenError, boto.UnknownCredentialError, boto.UnsupportedSignatureVersionError,
)  # fmt: skip
_CERTIFICATE = re.compile(
    r"CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER|RECORD_LAYER|HTTP_REQUEST", re.IGNORECASE
)


class PreconditionFailedError(Exception):
    """A conditional write lost: the object exists already, or is not the one that was read."""


class StoreRefusedError(ConfigurationError):
    """The store, or what reaches for it, refuses until somebody changes a setting, a right or a bucket."""


@dataclass(frozen=True)
class Said:
    """What a store answered, in its own words."""

    code: str
    message: str
    status: int | None
    action: str


def code_of(error: BaseException) -> str:
    """The store's error code; empty where it did not answer. An answer without a body has its status for one."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, boto.ClientError) else ""


def is_mute(error: BaseException) -> bool:
    """Whether the store refused without a word, as it has to where a HEAD asks: a GET would be told why."""
    code = code_of(error)
    return code.isdigit() and code not in _SAY_IT_ALL and (not code.startswith("5") or code in NOT_KNOWN)


def our_error(error: BaseException, bucket: str, key: str, action: str, *, checksums: bool) -> ReshelveError:
    """TryAgainError, or StoreRefusedError with bucket, key, action and what to set. `checksums`: whether they are sent."""
    error = _innermost(error)
    if isinstance(error, boto.ClientError):
        answer = error.response
        found = answer.get("Error", {})
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        said = Said(
            code_of(error) or str(status or ""),  # a web server's page has no code
            str(found.get("Message", "")),
            status,
            error.operation_name or action,
        )
        return judged(said, bucket, key, checksums=checksums)
    hint = _local_hint(error)
    if hint:
        name = type(error).__name__
        return StoreRefusedError(
            f"{_where(bucket, key)}: {action} is not possible: {name}", f"{error}\n{hint}"
        )
    words = (
        f"{error}\nis AWS_ENDPOINT_URL an S3 store?" if isinstance(error, ResponseParserError) else str(error)
    )
    return _again(bucket, key, action, words)


def judged(said: Said, bucket: str, key: str, *, checksums: bool) -> ReshelveError:
    """Our error for what a store said."""
    about = checksums and _about_checksums(said)
    status = said.status or (int(said.code) if said.code.isdigit() else 0)
    if not about and (said.code in _AGAIN or (said.code not in _HINTS and _may_pass(status))):
        words = "\n".join(filter(None, (f"{said.code}: {said.message}", _WAITS.get(said.code))))
        return _again(bucket, key, said.action, words)
    hints = [_HINTS.get(said.code, "").format(action=said.action)]
    if about:
        hints = [f"the store refuses checksums in headers: set {CHECKSUM_SETTING}"]
    elif checksums and said.action in _SENDS_CHECKSUMS and said.code not in _BUCKET:
        hints.append(f"if the store does not support checksums in headers: set {CHECKSUM_SETTING}")
    return StoreRefusedError(
        f"{_where(bucket, key)}: the store refuses {said.action}: {said.code or status}",
        "\n".join(filter(None, (said.message, *hints))),
    )


def entity_tag(answer: Mapping[str, Any], bucket: str, key: str, action: str) -> str:
    """The entity tag of an answer. Raises StoreRefusedError where it has none."""
    require_s3(answer, "ETag", bucket, key, action)
    return str(answer["ETag"])


def require_s3(answer: Mapping[str, Any], name: str, bucket: str, key: str, action: str) -> None:
    """Raises StoreRefusedError for an answer without what every S3 store says: any web server may answer 200."""
    if name not in answer:
        raise StoreRefusedError(f"{_where(bucket, key)}: the answer to {action} has no {name}", _HINTS["404"])


def _about_checksums(said: Said) -> bool:
    if said.code in _AGAIN or said.code in _ACCESS or said.code in _BUCKET:
        return False
    return said.code in _CHECKSUM_CODES or bool(_OF_CHECKSUMS.search(said.message))


def _may_pass(status: int) -> bool:
    """Whether time may mend an answer whose code nobody knows."""
    return status == 0 or status in _AGAIN_STATUS or (status >= 500 and status != 501)


def _again(bucket: str, key: str, action: str, words: str) -> TryAgainError:
    return TryAgainError(
        f"the object store s3://{bucket} did not answer as expected",
        f"{action} {key}: {words}".replace("  ", " "),
    )


def _local_hint(error: BaseException) -> str:
    """What to set, where no request can be made; empty where the store was only away."""
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        keys = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this host a role"
        if (settings().home / "env").is_file():
            return keys
        return f"no local platform has been started here: `make run` or `make night` starts it; for another store {keys}"
    if isinstance(error, boto.SSLError) and _CERTIFICATE.search(str(error)):
        return "check AWS_ENDPOINT_URL; AWS_CA_BUNDLE names the certificates to trust"
    cause = getattr(error, "kwargs", {}).get("error")
    if isinstance(error, ValueError | boto.EndpointProviderError) or isinstance(
        cause, LocationValueError | UnicodeError
    ):
        return "check AWS_ENDPOINT_URL and RESHELVE_BUCKET"
    return "check the AWS_* variables and RESHELVE_BUCKET" if isinstance(error, _LOCAL) else ""


def _where(bucket: str, key: str) -> str:
    return f"s3://{bucket}/{key}" if key else f"s3://{bucket}"


def _innermost(error: BaseException) -> BaseException:
    """boto3's transfers wrap what happened."""
    while isinstance(error, Boto3Error):
        inner = getattr(error, "last_exception", None) or error.__cause__ or error.__context__
        if inner is None:
            break
        error = inner
    return error

"""The one error of the model server: a canonical status code and TensorFlow Serving's own text."""

from __future__ import annotations

from grpc import StatusCode

_BY_NUMBER = {code.value[0]: code for code in StatusCode}
# TensorFlow's Python session puts this before what the kernels said; the C++ server has only the latter.
_SESSION_PREFIX = "Graph execution error:\n\n"


class ServingError(Exception):
    """A request or a load that failed, as TensorFlow Serving's `Status`."""

    def __init__(self, code: StatusCode, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message

    @property
    def number(self) -> int:
        """The canonical code as an integer: 5 is NOT_FOUND."""
        return int(self.code.value[0])

    @classmethod
    def of(cls, error: BaseException) -> ServingError:
        """The status of anything raised while loading or running a graph."""
        if isinstance(error, ServingError):
            return error
        number = getattr(error, "error_code", None)  # tensorflow.errors.OpError
        if isinstance(number, int) and number in _BY_NUMBER:
            text = str(getattr(error, "message", error))
            return cls(_BY_NUMBER[number], text.removeprefix(_SESSION_PREFIX))
        if isinstance(error, MemoryError):
            return cls(StatusCode.RESOURCE_EXHAUSTED, "out of memory")
        code = StatusCode.INVALID_ARGUMENT if isinstance(error, ValueError) else StatusCode.UNKNOWN
        return cls(code, str(error) or type(error).__name__)


def invalid(message: str) -> ServingError:
    """INVALID_ARGUMENT with `message`."""
    return ServingError(StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> ServingError:
    """NOT_FOUND with `message`."""
    return ServingError(StatusCode.NOT_FOUND, message)


def failed_precondition(message: str) -> ServingError:
    """FAILED_PRECONDITION with `message`."""
    return ServingError(StatusCode.FAILED_PRECONDITION, message)

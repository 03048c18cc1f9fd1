"""Structured logs on stderr. Stdout belongs to a verb's result, so that machines can read it."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import structlog


def configure_logs() -> None:
    """Set up structlog once per process: readable lines, or JSON where `RESHELVE_LOG=json`."""
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if os.environ.get("RESHELVE_LOG") == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def logger(**context: Any) -> Any:
    """A logger with `context` on every line."""
    return structlog.get_logger(**context)

"""Judges of histories: is there an order of these operations that explains every answer?"""

from outlast.check.core.history import History, history_of, line_of, parse_lines
from outlast.check.core.model import DeltaModel, Model
from outlast.check.core.models import MODELS
from outlast.check.core.operation import Operation
from outlast.check.core.result import EXIT_CODES, CheckVerdict, CounterExample, Result
from outlast.check.judge import check
from outlast.check.picture import html, svg
from outlast.check.reading import read_history, read_stream

__all__ = [
    "EXIT_CODES",
    "MODELS",
    "CheckVerdict",
    "CounterExample",
    "DeltaModel",
    "History",
    "Model",
    "Operation",
    "Result",
    "check",
    "history_of",
    "html",
    "line_of",
    "parse_lines",
    "read_history",
    "read_stream",
    "svg",
]

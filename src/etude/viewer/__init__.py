"""What a person sees of a run: the live table, the summary at its end, and the report.

Everything here reads what the run has recorded; nothing here computes with tensors or imports torch.
"""

from etude.viewer.live import LiveTable
from etude.viewer.live_search import LiveSearch
from etude.viewer.report import write_report
from etude.viewer.summary import print_summary

__all__ = ["LiveSearch", "LiveTable", "print_summary", "write_report"]

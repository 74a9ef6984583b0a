"""Watching the model that serves: windows of time, what each says, and the signals that rise and clear over them."""

from retune.plan.watch.judging import judge_windows, keep_to_champion

__all__ = ["judge_windows", "keep_to_champion"]

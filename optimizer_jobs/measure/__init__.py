"""Honest numbers: quality with paired intervals, interleaved latency, and what hardware they belong to."""

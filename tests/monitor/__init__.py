"""Tests of what needs Evidently, which only the monitor image carries: `make test-monitor`."""

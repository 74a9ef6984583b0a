"""Model servers of others that run: each is told over HTTP what to serve, and asked what it serves."""

from optimizer_jobs.serving.running.base import RunningServer

__all__ = ["RunningServer"]

# The monitor: the image of the check Job. Evidently lives here alone, because it takes seconds and 290 MB to import.
# Build from the repository's root: docker build --file optimizer_jobs/monitor.Dockerfile .
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b
FROM ${BASE_IMAGE}

ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    DO_NOT_TRACK=1 \
    ITERATIVE_DO_NOT_TRACK=1

COPY requirements/monitor.txt /app/requirements/
RUN --mount=type=cache,target=/tmp/pip-cache \
    python3 -m venv /opt/venv \
    && python -m pip install --quiet --progress-bar off --cache-dir /tmp/pip-cache \
         --no-deps --require-hashes -r /app/requirements/monitor.txt \
    && python -m pip uninstall --quiet --yes setuptools pip

COPY operator/retune/__init__.py /app/retune/
COPY operator/retune/api /app/retune/api
COPY operator/retune/contract /app/retune/contract
COPY optimizer_jobs /app/optimizer_jobs
RUN python -m compileall -q --invalidation-mode unchecked-hash /app/retune /app/optimizer_jobs

WORKDIR /tmp
USER 65532:65532
ENTRYPOINT ["python", "-m", "optimizer_jobs"]

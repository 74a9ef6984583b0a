# The real Triton Inference Server of its wheel, laid out as in the image of its makers: `tritonserver` on PATH, backends
# below /opt/tritonserver, an entry point that runs its arguments, and no user of its own, so that it runs as root unless
# the pod says otherwise. ONNX Runtime is called from Python, because no package has Triton's backend for it.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}

RUN apt-get update -qq \
    && apt-get install --yes -qq --no-install-recommends libpython3.11 \
    && rm -rf /var/lib/apt/lists/*

COPY requirements.txt /opt/
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/python -m pip install --quiet --progress-bar off --no-cache-dir \
         --no-deps --require-hashes -r /opt/requirements.txt \
    && ln -s /opt/venv/lib/python3.11/site-packages/pytriton/tritonserver /opt/tritonserver \
    && install --mode=755 /opt/tritonserver/python_backend_stubs/3.11/triton_python_backend_stub \
         /opt/tritonserver/backends/python/

COPY model.py /opt/tritonserver/backends/onnxruntime/

ENV PATH=/opt/tritonserver/bin:/usr/local/bin:/usr/bin:/bin \
    LD_LIBRARY_PATH=/opt/venv/lib/python3.11/site-packages/nvidia_pytriton.libs \
    ORT_DISABLE_TELEMETRY=1 \
    QUIRKS={}

# What the played backend does wrong, by a model's name.
COPY quirks.json entrypoint.sh /opt/
ENTRYPOINT ["/bin/sh", "/opt/entrypoint.sh"]

# The proxy of Envoy Gateway, for the same tests.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
COPY --chmod=755 envoy /usr/local/bin/envoy
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/envoy"]

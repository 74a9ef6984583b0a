# Envoy Gateway, for tests with a real gateway: the static program alone. It is the shutdown manager of its proxies too.
FROM scratch
COPY --chmod=755 envoy-gateway /usr/local/bin/envoy-gateway
ENV PATH=/usr/local/bin
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/envoy-gateway"]

# KServe's controller, for examples and tests: the static program alone.
FROM scratch
COPY --chmod=755 manager /manager
USER 65532:65532
ENTRYPOINT ["/manager"]

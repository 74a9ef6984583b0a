# An S3 server over a folder, for examples and tests without a shared volume: the static program alone.
FROM scratch
COPY --chmod=755 versitygw /usr/local/bin/versitygw
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/versitygw"]

# The pause container of every pod, and a small image with a shell for tests. Built from Debian's static busybox.
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV PATH=/bin
ENTRYPOINT ["/bin/sleep", "2147483647"]

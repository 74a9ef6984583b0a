# Local stand-in for python:3.11-slim-bookworm where no image registry is reached. Built from debootstrap's tree.
FROM scratch
ADD rootfs.tar /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
CMD ["python3"]

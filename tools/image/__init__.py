"""Builds the controller's image from the Dockerfile on a machine without a container engine, and runs it there.

`base` makes a base image from Debian's packages where the public one cannot be pulled; `build` hands the Dockerfile to
Debian's buildah; `rootfs` runs inside that build and gathers what the image consists of; `container` runs a built image
as a cluster would: unprivileged, with a read-only root.
"""

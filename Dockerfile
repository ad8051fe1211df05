# The controller's image: an interpreter, the libraries that it loads, our packages, and nothing else. No shell, no package
# manager, no pip: what is not there cannot be misused, and need not be patched.
#
# The base is pinned by digest, each package by hash. `make image` builds this file without a daemon. The base is named in
# full, as no machine need know where short names are looked up, and here, as Dependabot renews no name from an ARG.
FROM docker.io/library/python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1
WORKDIR /src
# pip lives in a virtual environment of its own, so that the one that is shipped has none.
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/driver-upgrade
COPY requirements.lock requirements-build.lock ./
RUN /build/bin/python -m pip install --quiet --require-hashes --only-binary :all: -r requirements-build.lock \
 && /build/bin/python -m pip --python /opt/driver-upgrade/bin/python install --quiet --require-hashes \
    --only-binary :all: -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY manifests/crd manifests/crd
COPY controller controller
RUN /build/bin/python -m pip wheel --quiet --no-build-isolation --no-deps --no-index --wheel-dir /wheels . \
 && /build/bin/python -m pip --python /opt/driver-upgrade/bin/python install --quiet --no-deps --no-index /wheels/*.whl
COPY tools/image/rootfs.py ./
RUN python3 rootfs.py /opt/driver-upgrade /rootfs

FROM scratch
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
COPY --from=build /rootfs/ /
LABEL org.opencontainers.image.title="driver-upgrade" \
      org.opencontainers.image.description="Upgrades the containerized drivers of a Kubernetes cluster node by node, without surprising a workload." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
# The root file system is read-only where this runs, and everything is compiled: nothing is to be written. Compiled files
# are taken without a look at their sources (unchecked-hash), which saves two calls of the system for each module.
ENV PATH=/opt/driver-upgrade/bin:/usr/local/bin:/usr/bin \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /
EXPOSE 8081 8443
ENTRYPOINT ["/opt/driver-upgrade/bin/driver-upgrade"]

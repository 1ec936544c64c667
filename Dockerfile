# Two images out of one file:
#   --target server    the planner; torch with CUDA as the package registry serves it (the default)
#   --target sidecar   the client commands, without torch
#
# Swap the base to pin a digest or to take a mirror.
ARG BASE_IMAGE=docker.io/library/python:3.12-slim-bookworm

# ---------------------------------------------------------------------------------------- build
FROM ${BASE_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY pyproject.toml ./

FROM build AS wheel
# Any options of pip install: another index, --find-links, --constraint. Not quoted below, so that
# several may be given.
ARG PIP_ARGS=""
COPY . ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip wheel ${PIP_ARGS} --no-deps --wheel-dir /wheel .

# The environments hold what `pyproject.toml` asks for and nothing of ours: a stand-in of the same
# name, without a module, brings them in and leaves again. So a change of code keeps these layers,
# gigabytes with torch, in every cache between here and the nodes.
FROM build AS environment
RUN python3 -m venv --without-pip /opt/expertplane \
 && touch README.md LICENSE

FROM environment AS sidecar-environment
ARG PIP_ARGS=""
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip --python /opt/expertplane/bin/python install ${PIP_ARGS} ".[sidecar]" \
 && python3 -m pip --python /opt/expertplane/bin/python uninstall --yes expertplane

FROM environment AS server-environment
ARG PIP_ARGS=""
# Narrow it to match a driver, or to take a build for CPUs.
ARG TORCH_SPEC="torch>=2.4"
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip --python /opt/expertplane/bin/python install ${PIP_ARGS} ".[server]" "${TORCH_SPEC}" \
 && python3 -m pip --python /opt/expertplane/bin/python uninstall --yes expertplane

# What is ours, laid out to be copied over either environment.
FROM environment AS program
COPY --from=wheel /wheel /wheel
RUN python3 -m pip --python /opt/expertplane/bin/python install --no-index --no-deps \
      --prefix /program /wheel/*.whl

# -------------------------------------------------------------------------------------- run time
FROM ${BASE_IMAGE} AS runtime
# A name for the number: some libraries look up their user. Its home is the one place to keep
# state in; everything else may be read-only, but for /tmp.
RUN groupadd --gid 65532 expertplane \
 && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /var/lib/expertplane \
      --shell /usr/sbin/nologin expertplane \
 && install --directory --owner=65532 --group=65532 --mode=0750 /var/lib/expertplane
ENV PATH=/opt/expertplane/bin:${PATH} \
    PYTHONUNBUFFERED=1
WORKDIR /var/lib/expertplane
STOPSIGNAL SIGTERM
ENTRYPOINT ["expertplane"]

FROM runtime AS sidecar
COPY --from=sidecar-environment /opt/expertplane /opt/expertplane
COPY --from=program /program /opt/expertplane
# A number, as runAsNonRoot cannot judge a name.
USER 65532:65532
CMD ["--help"]
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="expertplane-sidecar" \
      org.opencontainers.image.description="Client commands of Expertplane, the placement control plane for Mixture-of-Experts inference." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"

FROM runtime AS server
# Triton compiles a small C launcher for every kernel when it first runs.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
COPY --from=server-environment /opt/expertplane /opt/expertplane
COPY --from=program /program /opt/expertplane
# What the container toolkit mounts; which devices, the device plug-in or --gpus decides.
# Compilers cache below /tmp, the one writable place of a read-only container beside the state. What
# Triton compiles for a GPU takes longest, and lies with the state, so that it outlives the container.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    CUDA_CACHE_PATH=/tmp/cuda \
    NUMBA_CACHE_DIR=/tmp/numba \
    TORCHINDUCTOR_CACHE_DIR=/tmp/torchinductor \
    TRITON_CACHE_DIR=/var/lib/expertplane/triton \
    EXPERTPLANE_SERVE_STORE=sqlite:////var/lib/expertplane/planner.db
USER 65532:65532
# gRPC, metrics. Both listen on loopback until told otherwise.
EXPOSE 50051 9464
# Exec form, and the program itself asks: no shell, no further binary. The start includes CUDA.
HEALTHCHECK --interval=30s --timeout=10s --start-period=180s --retries=3 \
  CMD ["expertplane", "health", "--address", "127.0.0.1:50051", "--service", "readiness"]
CMD ["serve"]
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="expertplane-server" \
      org.opencontainers.image.description="Planner of Expertplane, the placement control plane for Mixture-of-Experts inference." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"

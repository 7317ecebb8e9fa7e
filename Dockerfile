# syntax=docker/dockerfile:1
# Tidegate's image: one static binary, certificate authorities and a user. It has no shell and writes no files.
#
#   docker build --build-arg TIDEGATE_BUILD="$(git rev-parse --short HEAD)" --tag tidegate .
#   docker run --read-only --publish 8000:8000 --volume "$PWD/gateway.toml:/etc/tidegate/gateway.toml:ro" tidegate
#
# Each step is one of scripts/build-static, which also runs without a container engine.

ARG RUST_IMAGE=rust:1.95.0-bookworm

FROM ${RUST_IMAGE} AS build
WORKDIR /source
COPY scripts/build-static scripts/
RUN scripts/build-static prepare
# This layer is rebuilt when a dependency changes, not when src/ changes.
COPY Cargo.toml Cargo.lock ./
COPY bench/Cargo.toml bench/
RUN scripts/build-static dependencies
COPY . .
ARG TIDEGATE_BUILD=unknown
RUN TIDEGATE_BUILD="${TIDEGATE_BUILD}" scripts/build-static binary \
    && scripts/build-static root /image

FROM scratch
ARG TIDEGATE_BUILD=unknown
LABEL org.opencontainers.image.title="tidegate" \
      org.opencontainers.image.description="A gateway that gives an existing HTTP API or queue worker WebSockets" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.revision="${TIDEGATE_BUILD}"
COPY --from=build /image/ /
USER 65532:65532
# The public and the admin port. Set [admin] listen to 0.0.0.0:9000 to reach it from outside the container.
EXPOSE 8000 9000
# Draining takes [shutdown] drain + grace, 35 s by default: stop the container with `--stop-timeout 45` or more.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=5s --retries=3 \
    CMD ["/usr/local/bin/tidegate", "health", "--config", "/etc/tidegate/gateway.toml"]
ENTRYPOINT ["/usr/local/bin/tidegate"]
CMD ["serve", "--config", "/etc/tidegate/gateway.toml"]

# One image for each service, of one build: docker build --target user | order | inventory | demo
# Works with the classic builder and with BuildKit.

# As in rust-toolchain.toml, which stays outside: it asks for components that building an image has no use for.
ARG RUST_VERSION=1.95.0

FROM rust:${RUST_VERSION}-bookworm AS toolchain
ENV CARGO_INCREMENTAL=0
WORKDIR /souk

# What comes out of this stage is the same until a manifest changes, and with it the layer of the dependencies below.
FROM toolchain AS skeleton
COPY . .
RUN deploy/docker/skeleton

FROM toolchain AS dependencies
ENV PACKAGES="-p souk-user -p souk-order -p souk-inventory -p souk" \
    BINARIES="--bin souk-user --bin souk-order --bin souk-inventory --bin souk-demo"
COPY --from=skeleton /souk .
# The empty sources go, as no file of theirs may stand beside the real ones, and with them the fingerprints of our own crates: the sources
# that come next may be older than what was built of the empty ones.
RUN cargo build --release --locked ${PACKAGES} ${BINARIES} \
 && rm -rf target/release/.fingerprint/souk* crates services

FROM dependencies AS build
COPY . .
RUN cargo build --release --locked ${PACKAGES} ${BINARIES} \
 && mkdir bin \
 && cp target/release/souk-user target/release/souk-order target/release/souk-inventory target/release/souk-demo bin/

# No shell, no package manager, nobody is root. A service writes nothing but its standard output: the root file system may be read-only.
FROM gcr.io/distroless/cc-debian12:nonroot AS service
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.vendor="Souk" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER 65532:65532
WORKDIR /
STOPSIGNAL SIGTERM

FROM service AS user
LABEL org.opencontainers.image.title="souk-user" org.opencontainers.image.description="The user service of Souk"
COPY --from=build /souk/bin/souk-user /usr/local/bin/souk-user
EXPOSE 50051 9090
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD ["/usr/local/bin/souk-user", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/souk-user"]

FROM service AS order
LABEL org.opencontainers.image.title="souk-order" org.opencontainers.image.description="The order service of Souk"
COPY --from=build /souk/bin/souk-order /usr/local/bin/souk-order
EXPOSE 50052 9090
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD ["/usr/local/bin/souk-order", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/souk-order"]

FROM service AS inventory
LABEL org.opencontainers.image.title="souk-inventory" org.opencontainers.image.description="The inventory service of Souk"
COPY --from=build /souk/bin/souk-inventory /usr/local/bin/souk-inventory
EXPOSE 50053 9090
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD ["/usr/local/bin/souk-inventory", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/souk-inventory"]

# Loads the README's catalogue and customers into services that run, and ends.
FROM service AS demo
LABEL org.opencontainers.image.title="souk-demo" org.opencontainers.image.description="Loads the demonstration of Souk"
COPY --from=build /souk/bin/souk-demo /usr/local/bin/souk-demo
ENTRYPOINT ["/usr/local/bin/souk-demo"]

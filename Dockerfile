# One image with the three programs: docker build -t tidegate.dev/tidegate:VERSION .
# Nothing is in it but these, nft, and the libraries they need. charts/image/build.sh builds the same
# without a daemon.
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends build-essential nftables
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --bins -p sidecar -p controller -p cli \
    && charts/image/root.sh target/release /image

FROM scratch
ARG VERSION=0.1.0
COPY --from=build /image/ /
ENV PATH=/bin
# No name stands for the number: there is no /etc/passwd.
USER 2102:2102
WORKDIR /
LABEL org.opencontainers.image.title=tidegate \
      org.opencontainers.image.description="Tidegate: sidecar, controller and command line" \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.version=$VERSION
CMD ["tidegate", "--help"]

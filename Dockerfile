# syntax=docker/dockerfile:1

# The console's page.
FROM node:22-bookworm-slim AS web
WORKDIR /build/web
COPY web/package.json web/package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY openapi /build/openapi
COPY web ./
RUN npm run build

# The binary, with the page in it. RocksDB is C++, and bindgen reads its headers with libclang.
FROM rust:1.95-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends clang libclang-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
COPY --from=web /build/web/dist web/dist
# The end-to-end tests are no part of the image; cargo wants to see their file all the same.
RUN mkdir -p tests/it && printf '//! Left out of the image.\n' > tests/it/main.rs
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin plinth \
    && cp target/release/plinth /plinth

# What runs: the binary, the C++ runtime of RocksDB, root certificates for the TLS of the object store, and nobody's rights.
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 plinth \
    && useradd --system --uid 10001 --gid plinth --home-dir /var/lib/plinth --no-create-home --shell /usr/sbin/nologin plinth \
    && install -d -o plinth -g plinth -m 0750 /var/lib/plinth
COPY --from=build /plinth /usr/local/bin/plinth
COPY LICENSE /usr/share/doc/plinth/LICENSE
ENV PLINTH_LISTEN=0.0.0.0:8080 \
    PLINTH_STORE=file:///var/lib/plinth/objects \
    PLINTH_CACHE_DIR=/var/lib/plinth/cache
USER 10001:10001
WORKDIR /var/lib/plinth
VOLUME /var/lib/plinth
EXPOSE 8080
# Other machines reach 0.0.0.0, so a start needs PLINTH_TLS_CERT and PLINTH_TLS_KEY, or PLINTH_PLAIN_HTTP=true where a proxy
# ends TLS.
# `/livez`: a store that is away is no reason to kill the node, which recovers by itself.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["plinth", "healthcheck"]
ENTRYPOINT ["plinth"]
CMD ["serve"]

# The worker. Build it from the repository's root:
#   docker build -f deploy/docker/worker.Dockerfile -t tabreel/worker .
# To pin what it is made of by content: --build-arg NODE_DIGEST=@sha256:... --build-arg BASE_DIGEST=@sha256:...
ARG NODE_DIGEST=
ARG BASE_DIGEST=

FROM node:24.21.0-trixie-slim${NODE_DIGEST} AS packages
WORKDIR /app
COPY package.json package-lock.json ./
# No Node of the packages (the image has one), no bundled browser (Debian's are installed), nothing of the edge or the command line
RUN npm ci --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund \
 && npm pkg delete dependencies.@sparticuz/chromium dependencies.js-redis-server dependencies.@aws-sdk/client-s3 \
      dependencies.@hono/node-server dependencies.hono-openapi dependencies.@hono/standard-validator \
      dependencies.@bull-board/api dependencies.@bull-board/hono \
 && npm prune --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund --offline \
 && find node_modules -type f \( -name '*.map' -o -name '*.d.ts' -o -name '*.d.mts' -o -name '*.d.cts' \) -delete \
 && find node_modules -type d -empty -delete

FROM debian:13.8-slim${BASE_DIGEST}
# Mesa's software OpenGL goes again, 190 MiB: libgbm depends on it, and browsers without a GPU never load it (they have SwiftShader).
# Fonts' directories get times of whole seconds, as a layer keeps no others: with these the cache of fonts stays valid, and no
# browser reads all fonts when it starts
RUN --mount=type=bind,source=deploy/docker/worker-packages.txt,target=/tmp/packages.txt \
    apt-get update \
 && DEBIAN_FRONTEND=noninteractive xargs -a /tmp/packages.txt apt-get install -y --no-install-recommends \
 && rm -f /usr/lib/*-linux-gnu/libgallium-* /usr/lib/*-linux-gnu/libLLVM* /usr/lib/*-linux-gnu/libz3.so* \
 && find /usr/share/fonts /usr/local/share/fonts -type d -exec touch --date=@1 {} + \
 && fc-cache --force --system-only \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/debconf/* \
 && install -d -o 10001 -g 10001 /spool
COPY --from=packages /usr/local/bin/node /usr/local/bin/node
WORKDIR /app
COPY --from=packages /app/package.json ./
COPY --from=packages /app/node_modules ./node_modules
COPY shared ./shared
COPY worker ./worker

LABEL org.opencontainers.image.title="Tabreel worker" \
      org.opencontainers.image.description="Records live web pages in Chromium and sends them to a Tabreel edge" \
      org.opencontainers.image.licenses="Apache-2.0"
# No CHROMIUM_PATH: without it both engines are found, and Chromium itself rather than Debian's launcher, which keeps browsers
# out of a /dev/shm below 3.8 GB
ENV NODE_ENV=production \
    HOME=/tmp/home \
    SPOOL_DIR=/spool \
    HEALTH_PORT=9090
USER 10001:10001
EXPOSE 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
  CMD ["/usr/local/bin/node", "-e", "fetch('http://127.0.0.1:9090/healthz').then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["/usr/bin/tini", "--", "/usr/local/bin/node"]
CMD ["worker/main.ts"]

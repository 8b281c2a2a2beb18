# Edge, finaliser and command line (doctor, canary, key). Build it from the repository's root:
#   docker build -f deploy/docker/edge.Dockerfile -t tabreel/edge .
#   docker run tabreel/edge                                             the edge
#   docker run tabreel/edge edge/finaliser.ts                           the finaliser
#   docker run --init -t tabreel/edge bin/tabreel.ts doctor URL         the command line
# To pin what it is made of by content: --build-arg NODE_DIGEST=@sha256:... --build-arg BASE_DIGEST=@sha256:...
# Where gcr.io can't be reached: --build-arg BASE=debian:13.8-slim
ARG NODE_DIGEST=
ARG BASE=gcr.io/distroless/cc-debian13:nonroot
ARG BASE_DIGEST=

FROM node:24.21.0-trixie-slim${NODE_DIGEST} AS packages
WORKDIR /app
COPY package.json package-lock.json ./
# No Node of the packages (the image has one), nothing of the worker
RUN npm ci --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund \
 && npm pkg delete dependencies.@sparticuz/chromium dependencies.js-redis-server dependencies.puppeteer-core \
      dependencies.@mediabunny/aac-encoder dependencies.libopus-wasm dependencies.werift \
 && npm prune --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund --offline \
 && find node_modules -type f \( -name '*.map' -o -name '*.d.ts' -o -name '*.d.mts' -o -name '*.d.cts' \) -delete \
 && find node_modules -type d -empty -delete \
 && mkdir /recordings

# Node needs the C and C++ libraries; there is no shell and no package manager to patch
FROM ${BASE}${BASE_DIGEST}
COPY --from=packages /usr/local/bin/node /usr/local/bin/node
COPY --from=packages --chown=10001:10001 /recordings /recordings
WORKDIR /app
COPY --from=packages /app/package.json ./
COPY --from=packages /app/node_modules ./node_modules
COPY shared ./shared
COPY edge ./edge
COPY bin ./bin
# what doctor shares with the worker: how a media URL is dialled
COPY worker ./worker

LABEL org.opencontainers.image.title="Tabreel edge" \
      org.opencontainers.image.description="Tabreel's API, media ingest and finaliser, and its command line" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV NODE_ENV=production \
    HOME=/tmp/home \
    STORAGE_URL=file:///recordings \
    HEALTH_PORT=9090
USER 10001:10001
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
  CMD ["/usr/local/bin/node", "-e", "fetch('http://127.0.0.1:9090/healthz').then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))"]
# Node is process 1: it handles SIGTERM itself, and starts no processes that could be left to it
ENTRYPOINT ["/usr/local/bin/node"]
CMD ["edge/node.ts"]

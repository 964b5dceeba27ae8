# One image per service, all from one build. Each carries only the npm packages its service needs: the coordinator has no tensor library.
#   docker build --target worker -t segue-worker .
FROM node:20-bookworm-slim AS base
WORKDIR /app
ENV NODE_ENV=production
# For `segue certs`.
RUN apt-get update && apt-get install -y --no-install-recommends openssl && rm -rf /var/lib/apt/lists/*

FROM node:20-bookworm-slim AS manifests
WORKDIR /app
COPY . .
# Only package.json files survive: the layers that install packages change only when these do.
RUN find . -type f ! -name package.json ! -name package-lock.json -delete && find . -type d -empty -delete

FROM base AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY --from=manifests /app ./
RUN --mount=type=cache,target=/root/.npm NODE_ENV=development npm ci --no-fund --no-audit
COPY . .
RUN npx tsc -b
# The native engine is compiled here, so that the images need no compiler.
RUN mkdir native && node --input-type=module -e "import { cpSync } from 'node:fs'; import { nativeLibrary } from './packages/engine/dist/devices/cpu/build.js'; cpSync(await nativeLibrary(), 'native/libsegue-cpu.so')"

FROM base AS coordinator-packages
COPY --from=manifests /app ./
RUN --mount=type=cache,target=/root/.npm npm ci --omit=dev -w services/coordinator --no-fund --no-audit

FROM base AS worker-packages
COPY --from=manifests /app ./
RUN --mount=type=cache,target=/root/.npm npm ci --omit=dev -w services/worker -w services/evaluator --no-fund --no-audit

FROM base AS dashboard-packages
COPY --from=manifests /app ./
RUN --mount=type=cache,target=/root/.npm npm ci --omit=dev -w services/dashboard --no-fund --no-audit

FROM base AS cli-packages
COPY --from=manifests /app ./
RUN --mount=type=cache,target=/root/.npm npm ci --omit=dev -w packages/cli --no-fund --no-audit

FROM build AS compiled
RUN mkdir /out && find packages services \( -path '*/dist/*' -o -path '*/public/*' -o -name package.json \) -not -path '*/node_modules/*' -type f -exec cp --parents {} /out \;

FROM base AS service
RUN mkdir -p /data /certs && chown node:node /data /certs
COPY --from=compiled /out ./
USER node
# The certificate names the cluster, not addresses that change with every container.
ENV SEGUE_TLS_SERVER_NAME=segue.internal

FROM service AS coordinator
COPY --from=coordinator-packages /app/node_modules ./node_modules
ENV SEGUE_LISTEN=0.0.0.0:7070 SEGUE_STORE=/data/store
VOLUME /data
EXPOSE 7070
CMD ["node", "services/coordinator/dist/main.js"]

FROM service AS worker
COPY --from=worker-packages /app/node_modules ./node_modules
COPY --from=build /app/native ./native
ENV SEGUE_LISTEN=0.0.0.0:7071 SEGUE_NATIVE_LIB=/app/native/libsegue-cpu.so
EXPOSE 7071
CMD ["node", "services/worker/dist/main.js"]

FROM service AS evaluator
COPY --from=worker-packages /app/node_modules ./node_modules
COPY --from=build /app/native ./native
ENV SEGUE_NATIVE_LIB=/app/native/libsegue-cpu.so
CMD ["node", "services/evaluator/dist/main.js"]

FROM service AS dashboard
COPY --from=dashboard-packages /app/node_modules ./node_modules
ENV SEGUE_LISTEN=0.0.0.0:7080
EXPOSE 7080
CMD ["node", "services/dashboard/dist/main.js"]

FROM service AS cli
COPY --from=cli-packages /app/node_modules ./node_modules
COPY packages/cli/bin ./packages/cli/bin
ENTRYPOINT ["node", "packages/cli/bin/segue.js"]

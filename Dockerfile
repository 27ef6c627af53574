# The engine as an image: `docker build -t workflow-engine .`, then `docker run -p 127.0.0.1:8000:8000 workflow-engine`.
# docs/how-to/deploy.md says more.

FROM python:3.13-slim AS build

# Another package index than PyPI: --build-arg PIP_INDEX_URL=...
ARG PIP_INDEX_URL

WORKDIR /source
COPY . .
# Binary packages only, so that no compiler is needed; without pip in what is copied from here.
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && python -m venv --without-pip /opt/workflow-engine \
    && python -m pip --python /opt/workflow-engine/bin/python install --no-cache-dir --only-binary :all: /wheels/*.whl


FROM python:3.13-slim

LABEL org.opencontainers.image.title="workflow-engine" \
      org.opencontainers.image.description="A workflow orchestration engine: DAGs in JSON, durable execution" \
      org.opencontainers.image.licenses="Apache-2.0"

# Fixed numbers: volumes are given to them, and Kubernetes sees from a number that it is not root.
RUN groupadd --gid 10001 workflow-engine \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/workflow-engine \
        --shell /usr/sbin/nologin workflow-engine \
    && install -d -o workflow-engine -g workflow-engine -m 0700 /var/lib/workflow-engine

COPY --from=build /opt/workflow-engine /opt/workflow-engine
COPY deploy/entrypoint.sh /usr/local/bin/entrypoint.sh

# Everybody outside of the container comes from another address than the loopback one. Whatever its roles, a process
# answers probes on one port.
ENV PATH=/opt/workflow-engine/bin:$PATH \
    API_HOST=0.0.0.0 \
    API_PORT=8000 \
    HEALTH_PORT=8000

USER 10001:10001
# BACKEND=embedded keeps its file here: a volume belongs on this folder.
WORKDIR /var/lib/workflow-engine
EXPOSE 8000
STOPSIGNAL SIGTERM

HEALTHCHECK --interval=5s --timeout=5s --start-period=90s --retries=3 CMD ["python", "-IS", "-c", \
    "import http.client as h, sys; c = h.HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/livez'); sys.exit(c.getresponse().status != 200)"]

ENTRYPOINT ["/usr/local/bin/entrypoint.sh"]
CMD ["serve"]

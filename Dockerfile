# The gateway, for a read-only root: docker run --read-only --tmpfs /tmp -v runoff:/var/lib/runoff -v ./key:/run/secrets/runoff_admin_key:ro
# What it runs and how it starts is tested without a builder: tests/deploy/test_dockerfile.py.

FROM python:3.11-slim AS build
ENV UV_NO_CACHE=1 \
    UV_COMPILE_BYTECODE=1
WORKDIR /src
# Dependencies first: this layer changes only with the lock.
COPY requirements.lock deploy/docker/install.sh ./
RUN sh install.sh dependencies /opt/runoff
COPY . .
RUN sh deploy/docker/install.sh package /opt/runoff

FROM python:3.11-slim
# LightGBM's wheel expects the system's OpenMP library.
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 runoff && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/runoff --shell /usr/sbin/nologin runoff \
    && install -d -o 10001 -g 10001 -m 0700 /var/lib/runoff
COPY --from=build /opt/runoff /opt/runoff
ENV PATH=/opt/runoff/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GIT_PYTHON_REFRESH=quiet \
    HOME=/var/lib/runoff \
    RUNOFF_STATE_DIR=/var/lib/runoff \
    RUNOFF_METRICS_HOST=0.0.0.0 \
    RUNOFF_ADMIN_HOST=0.0.0.0 \
    RUNOFF_AUTH_DATA=keys \
    RUNOFF_AUTH_ADMIN=keys \
    RUNOFF_BOOTSTRAP_KEY_FILE=/run/secrets/runoff_admin_key
# Beyond loopback keys are required. The first one is the line in the secret file (readable for user 10001), the others are made with it;
# without the file: docker exec … runoff keys create --local
WORKDIR /var/lib/runoff
VOLUME /var/lib/runoff
USER 10001:10001
# REST, gRPC, metrics and probes, admin API and console
EXPOSE 8080 8081 8082 8090
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["/opt/runoff/bin/python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8082/livez', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["runoff"]
CMD ["serve", "--host", "0.0.0.0"]

# The engine and the gateway, as two targets of one build: `docker compose up --build` uses both.

FROM python:3.11.14-slim-bookworm AS build
WORKDIR /source
# Every package of the lock file is fetched and its hash checked; what is installed below comes from here alone.
COPY requirements.lock ./
RUN python -m pip wheel --no-cache-dir --only-binary :all: --require-hashes --requirement requirements.lock --wheel-dir /wheels
COPY pyproject.toml README.md LICENSE ./
COPY services services
RUN python -m pip install --no-cache-dir --no-index --find-links /wheels hatchling \
 && python -m pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /wheels . \
 && python -m venv /opt/headrace \
 && /opt/headrace/bin/python -m pip install --no-cache-dir --no-index --find-links /wheels "headrace[openai]"

FROM python:3.11.14-slim-bookworm AS base
RUN useradd --system --uid 10001 --home-dir /var/lib/headrace --create-home headrace
COPY --from=build /opt/headrace /opt/headrace
ENV PATH=/opt/headrace/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HEADRACE_DATA_DIRECTORY=/var/lib/headrace
WORKDIR /var/lib/headrace
USER 10001

# Workers of your own: make an image from this one, install them into /opt/headrace, and name their module as the command.
FROM base AS engine
# An engine listens on no port. One that ends is replaced by its supervisor, which is the container's first process.
HEALTHCHECK NONE
ENTRYPOINT ["headrace", "engine"]

FROM base AS gateway
# All addresses, since loopback inside a container reaches nobody; so it has to ask who calls.
ENV HEADRACE_GATEWAY_HOST=0.0.0.0 \
    HEADRACE_GATEWAY_PORT=8787 \
    HEADRACE_GATEWAY_AUTHENTICATION=required
EXPOSE 8787
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=5 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8787/healthz', timeout=2)"]
ENTRYPOINT ["headrace", "gateway"]

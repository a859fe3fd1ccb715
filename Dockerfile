# ldr2hdr with its weights, for CPUs:         docker build --tag ldr2hdr .
# for NVIDIA GPUs:                             docker build --tag ldr2hdr:cuda --build-arg DEVICE=cuda .
# with more than the formats that it can read: --build-arg EXTRAS=all
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/work" ldr2hdr convert photos/ -o exr/
FROM debian:trixie-slim AS python
# Python's version is that of the Debian release.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/*

FROM python AS build
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3-venv \
 && rm -rf /var/lib/apt/lists/* \
 && python3 -m venv /opt/ldr2hdr
ENV PATH=/opt/ldr2hdr/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
# PyTorch first, in a layer of its own: it is most of the image, and changes with neither the code nor the weights.
# PyPI's has CUDA's libraries beside it, so that the host gives nothing but the driver.
COPY pyproject.toml ./
ARG DEVICE=cpu
# hadolint ignore=DL3013
RUN torch=$(sed -n 's/^ *"\(torch[^"]*\)".*/\1/p' pyproject.toml) \
 && case "$DEVICE" in \
      cpu) pip install "$torch" --index-url https://download.pytorch.org/whl/cpu ;; \
      cuda) pip install "$torch" ;; \
      *) echo "DEVICE=$DEVICE: must be cpu or cuda" && exit 2 ;; \
    esac
COPY README.md LICENSE ./
COPY ldr2hdr ldr2hdr
COPY ldr2hdr_cli ldr2hdr_cli
COPY model model
COPY train train
ARG EXTRAS=heif,raw,ocio
# hadolint ignore=DL3013
RUN pip install ".[$EXTRAS]"

FROM python
COPY --from=build /opt/ldr2hdr /opt/ldr2hdr
RUN useradd --no-create-home --uid 1000 ldr2hdr
# HOME: caches have a place under any --user. NVIDIA_…: what the container toolkit is to bring in.
ENV PATH=/opt/ldr2hdr/bin:$PATH HOME=/tmp NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["ldr2hdr"]
CMD ["--help"]

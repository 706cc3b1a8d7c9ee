# Two variants of one image: `--target cpu` (the default) and `--target cuda`.
#
#   docker build --target cpu --tag sleuth:0.1.0 .
#   docker build --target cuda --tag sleuth:0.1.0-cuda .
#
# Base images are arguments, so that a mirror or a digest may be named instead. With SOURCE_DATE_EPOCH
# set, two builds of one commit on the same base images have the same files.

ARG RUST_VERSION=1.95.0
ARG RUST_IMAGE=docker.io/library/rust:1.95.0-trixie
ARG CPU_BASE_IMAGE=gcr.io/distroless/cc-debian13:nonroot
ARG CUDA_BUILD_IMAGE=docker.io/nvidia/cuda:12.9.1-devel-ubuntu24.04
ARG CUDA_BASE_IMAGE=docker.io/nvidia/cuda:12.9.1-base-ubuntu24.04

# --- What both variants have beside the binary

FROM ${RUST_IMAGE} AS sources
ARG RUST_VERSION
# For tests/image/sbom.py; most images of Rust have it.
RUN command -v python3 >/dev/null || \
    { apt-get update && apt-get install --yes --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*; }
# The image's toolchain is that of rust-toolchain.toml; named here, nothing is fetched for it.
ENV RUSTUP_TOOLCHAIN=${RUST_VERSION} CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0
WORKDIR /src
COPY . .
# The trained model is found beside the binary, by no variable: one would win over a settings file.
RUN mkdir -p /out/opt/sleuth/models /out/usr/share/sleuth /out/usr/share/doc/sleuth && \
    cp -r models/mini /out/opt/sleuth/models/mini && \
    cp LICENSE-APACHE LICENSE-MIT /out/usr/share/doc/sleuth/ && \
    find /out -type d -exec chmod 0755 {} + && find /out -type f -exec chmod 0644 {} +

# --- CPU

FROM sources AS cpu-build
ARG SOURCE_DATE_EPOCH=0
RUN --mount=type=cache,target=/usr/local/cargo/registry,id=sleuth-cpu-registry,sharing=locked \
    --mount=type=cache,target=/src/target,id=sleuth-cpu-target,sharing=locked \
    cargo build --release --locked --package sleuth-cli && \
    install -D -m 0755 target/release/sleuth /out/opt/sleuth/bin/sleuth && \
    SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} python3 tests/image/sbom.py >/out/usr/share/sleuth/sbom.cdx.json
# Names of functions stay for panics; debug information goes, which is four fifths of the file.
RUN strip --strip-debug /out/opt/sleuth/bin/sleuth
RUN find /out -exec touch --no-dereference --date "@${SOURCE_DATE_EPOCH}" {} +

FROM ${CPU_BASE_IMAGE} AS cpu
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="sleuth" \
      org.opencontainers.image.description="Token-level rewards for vision-language models, served to RLHF trainers" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=cpu-build /out/ /
ENV PATH=/opt/sleuth/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
WORKDIR /opt/sleuth
USER 65532:65532
EXPOSE 50051 50052
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["/opt/sleuth/bin/sleuth", "probe", "http://127.0.0.1:50052/readyz"]
ENTRYPOINT ["/opt/sleuth/bin/sleuth"]
CMD ["serve"]

# --- CUDA

FROM sources AS cuda-sbom
ARG SOURCE_DATE_EPOCH=0
RUN --mount=type=cache,target=/usr/local/cargo/registry,id=sleuth-sbom-registry,sharing=locked \
    SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} python3 tests/image/sbom.py --features cuda >/out/usr/share/sleuth/sbom.cdx.json

FROM ${CUDA_BUILD_IMAGE} AS cuda-build
ARG RUST_VERSION
# The least compute capability that is served: 80 is A100, 89 L4 and L40S, 90 H100.
ARG CUDA_COMPUTE_CAP=80
ENV RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo RUSTUP_TOOLCHAIN=${RUST_VERSION} \
    CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0 CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP} \
    LIBRARY_PATH=/usr/local/cuda/lib64:/usr/local/cuda/lib64/stubs \
    PATH=/usr/local/cargo/bin:/usr/local/cuda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
COPY --from=sources /usr/local/rustup /usr/local/rustup
COPY --from=sources /usr/local/cargo /usr/local/cargo
COPY --from=cuda-sbom /out /out
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry,id=sleuth-cuda-registry,sharing=locked \
    --mount=type=cache,target=/src/target,id=sleuth-cuda-target,sharing=locked \
    cargo build --release --locked --package sleuth-cli --features cuda && \
    install -D -m 0755 target/release/sleuth /out/opt/sleuth/bin/sleuth
RUN strip --strip-debug /out/opt/sleuth/bin/sleuth
# Of the toolkit only the libraries that the binary asks for, from that which it was linked with.
RUN LD_LIBRARY_PATH=/usr/local/cuda/lib64 ldd /out/opt/sleuth/bin/sleuth >/tmp/libraries && \
    install -d -m 0755 /out/opt/sleuth/lib && \
    awk '$3 ~ "^/usr/local/cuda/" { print $3 }' /tmp/libraries | \
        xargs install -m 0644 --target-directory /out/opt/sleuth/lib && \
    ls /out/opt/sleuth/lib/libcublas.so.* /out/opt/sleuth/lib/libcurand.so.* && \
    ! grep 'not found' /tmp/libraries | grep -v 'libcuda\.so'
ARG SOURCE_DATE_EPOCH=0
RUN find /out -exec touch --no-dereference --date "@${SOURCE_DATE_EPOCH}" {} +

FROM ${CUDA_BASE_IMAGE} AS cuda
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="sleuth" \
      org.opencontainers.image.description="Token-level rewards for vision-language models, served to RLHF trainers; CUDA" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# No program here needs another user's rights.
RUN find / -xdev -type f -perm /6000 -exec chmod a-s {} +
COPY --from=cuda-build /out/ /
ENV PATH=/opt/sleuth/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LD_LIBRARY_PATH=/opt/sleuth/lib NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /opt/sleuth
USER 65532:65532
EXPOSE 50051 50052
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=300s --retries=3 \
    CMD ["/opt/sleuth/bin/sleuth", "probe", "http://127.0.0.1:50052/readyz"]
ENTRYPOINT ["/opt/sleuth/bin/sleuth"]
CMD ["serve"]

# Without --target.
FROM cpu

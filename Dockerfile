# Any answer, as an image:
#
#     docker build --build-arg ANSWER=url-shortener --tag url-shortener .
#
# or with its servers: docker compose --profile url-shortener up --build
ARG RUST=rust:1.95-slim-bookworm
ARG RUNTIME=debian:bookworm-slim

FROM ${RUST} AS built
ARG ANSWER
WORKDIR /workspace
COPY . .
RUN test -d "crates/$ANSWER/src" || { echo "give --build-arg ANSWER=NAME, a folder of crates/" >&2; exit 1; }
# The caches stay from build to build, and for all answers, so a change of code does not compile the dependencies again.
# They need BuildKit or buildah; the classic builder of Docker has none.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/workspace/target \
    cargo build --locked --release --package "$ANSWER" \
 && cp "target/release/$ANSWER" /answer \
 && strip /answer

FROM ${RUNTIME}
COPY --from=built /answer /answer
# Some answers keep files below the workspace in which they were built.
WORKDIR /workspace
RUN mkdir target && chown 65532:65532 target
USER 65532:65532
EXPOSE 3000
STOPSIGNAL SIGTERM
ENTRYPOINT ["/answer", "serve", "--host", "0.0.0.0"]

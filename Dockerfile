# The whole project in one environment: Airflow, the verbs, the object store, the agent.
# The same set-up as on a plain machine (scripts/setup.sh), so an image is what was tested.
#
#   docker build -t reshelve .
#   docker build -t reshelve-gpu --build-arg BASE=<an NVIDIA CUDA "devel" image of Ubuntu 22.04> \
#     --build-arg HOROVOD=nccl .              see docs/how-to/gpu-hosts.md
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
ARG HOROVOD=cpu
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ make python3.11 python3.11-dev python3.11-venv ca-certificates \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/reshelve
# The lock and the build script alone: a change of the project's code does not install it all again.
COPY pyproject.toml README.md ./
COPY locks locks
COPY scripts/setup.sh scripts/build_horovod.sh scripts/
COPY include/reshelve/__init__.py include/reshelve/__init__.py
# Compiled here: who runs the image may not write beside the packages. Some packages carry files that are no Python 3.
RUN RESHELVE_HOROVOD=${HOROVOD} scripts/setup.sh && rm -rf .wheels && { .venv/bin/python -m compileall -q -j 0 .venv/lib >/dev/null || true; }
# `--build-arg LOGIN=fab`: a company's log-in beside the simple one (docker-compose.oidc.yaml).
ARG LOGIN=simple
RUN [ "${LOGIN}" = simple ] || { .venv/bin/python -m pip install --no-deps --require-hashes --only-binary :all: -r "locks/${LOGIN}.lock" && .venv/bin/python -m pip check; }

FROM ${BASE}
# g++ stays out; setpriv is in util-linux; nginx is the gateway's; make is for people who look around inside.
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3.11 libgomp1 make nginx-light ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --user-group --uid 50000 reshelve \
 && install -d -o reshelve -g reshelve /var/lib/reshelve /models /trusted /data \
 && install -d -o reshelve -g reshelve -m 0700 /keys /logs
WORKDIR /opt/reshelve
COPY --from=build /opt/reshelve /opt/reshelve
COPY . .
ENV PATH=/opt/reshelve/.venv/bin:$PATH \
    PYTHONPATH=/opt/reshelve/plugins \
    RESHELVE_HOME=/var/lib/reshelve \
    AIRFLOW_HOME=/var/lib/reshelve/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/reshelve/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/reshelve/plugins
USER reshelve
# What a process of ours writes into a volume is its own user's alone; what another user's has to read, the agent opens.
ENTRYPOINT ["/bin/sh", "-c", "umask 077; exec \"$@\"", "sh"]
CMD ["reshelve", "--help"]

#!/bin/sh
# The front of a model server: nginx that lets Predict and questions through, and no list of models.
# TensorFlow Serving asks nobody who they are and takes lists on the port of Predict, so only its agent is on its network;
# everybody else asks here.
#   SERVER_GRPC  where the model server listens for gRPC (default model-server:8500)
#   SERVER_REST  and for REST, which has no admin calls (default model-server:8501)
#   GRPC, REST   where this listens (default 0.0.0.0:8500 and 0.0.0.0:8501)
#   RESOLVER     who knows the server's name (default Docker's, 127.0.0.11)
#   FRONT_FILES  a directory for its own files (default /tmp/front)
set -eu
files=${FRONT_FILES:-/tmp/front}
mkdir -p "$files"
# A server that is made anew has another address: its name is looked up again, which costs a connection for each call.
# A caller's own deadline travels with its request; these times only end what nobody waits for any more.
cat >"$files/nginx.conf" <<CONFIGURATION
daemon off;
pid $files/pid;
error_log stderr error;
worker_processes 4;
events { worker_connections 4096; }
http {
    access_log off;
    server_tokens off;
    resolver ${RESOLVER:-127.0.0.11} valid=5s ipv6=off;
    client_body_temp_path $files/body;
    proxy_temp_path $files/proxy;
    fastcgi_temp_path $files/fastcgi;
    uwsgi_temp_path $files/uwsgi;
    scgi_temp_path $files/scgi;
    client_max_body_size 64m;
    keepalive_timeout 1h;
    keepalive_requests 1000000;
    server {
        listen ${GRPC:-0.0.0.0:8500} http2;
        http2_max_concurrent_streams 1024;
        set \$server ${SERVER_GRPC:-model-server:8500};
        grpc_read_timeout 10m;
        location /tensorflow.serving.PredictionService/ { grpc_pass grpc://\$server; }
        location = /tensorflow.serving.ModelService/GetModelStatus { grpc_pass grpc://\$server; }
        location / { return 403; }
        error_page 403 = @refused;
        location @refused {
            default_type application/grpc;
            add_header grpc-status 7 always;
            add_header grpc-message "here are Predict and questions alone: the agent tells the model server what to load" always;
            return 204;
        }
    }
    server {
        listen ${REST:-0.0.0.0:8501};
        set \$server ${SERVER_REST:-model-server:8501};
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_read_timeout 10m;
        location /v1/models/ { proxy_pass http://\$server; }
        location = /monitoring/prometheus/metrics { proxy_pass http://\$server; }
        location / { return 404; }
    }
}
CONFIGURATION
exec nginx -e stderr -p "$files" -c "$files/nginx.conf"

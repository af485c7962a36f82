//! HAProxy's and nginx's configuration for one hop in the clear, one thread each.
//!
//! Never here: TLS; they are compared where their configuration is plain. Called by `rig`.

use std::path::Path;

use super::shape::{Hop, Side};

/// HAProxy, for requests or bytes.
pub(super) fn haproxy(hop: &Hop) -> String {
    let mode = if hop.inward == Side::Bytes { "tcp" } else { "http" };
    let (listen, upstream) = (hop.listen, hop.upstream);
    let reuse = if hop.inward == Side::Bytes { "" } else { "  http-reuse always\n  timeout http-keep-alive 600s\n" };
    format!(
        "global\n  nbthread 1\n  maxconn 8000\n\
         defaults\n  mode {mode}\n  timeout connect 5s\n  timeout client 600s\n  timeout server 600s\n{reuse}\
         frontend in\n  bind {listen}\n  default_backend out\n\
         backend out\n  server app {upstream}\n"
    )
}

/// nginx, for requests.
pub(super) fn nginx(hop: &Hop, dir: &Path) -> String {
    let (listen, upstream, dir) = (hop.listen, hop.upstream, dir.display());
    format!(
        "daemon off;\nmaster_process off;\npid {dir}/nginx.pid;\nerror_log stderr crit;\n\
         events {{ worker_connections 16384; }}\n\
         http {{\n  access_log off;\n  keepalive_timeout 600s;\n  keepalive_requests 1000000000;\n\
         client_body_temp_path {dir}/body;\n  proxy_temp_path {dir}/proxy;\n  fastcgi_temp_path {dir}/f;\n\
         uwsgi_temp_path {dir}/u;\n  scgi_temp_path {dir}/s;\n\
         upstream app {{ server {upstream}; keepalive 512; keepalive_requests 1000000000; }}\n\
         server {{ listen {listen} backlog=4096; location / {{\n    proxy_pass http://app;\n    proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\";\n  }} }}\n}}\n"
    )
}

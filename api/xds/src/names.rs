//! Names that both directions of the codec must spell alike.
//!
//! Extensions, metadata keys, secrets and a few fixed texts of Envoy's and Istio's protocols.
//! Never here: logic. Used by `encode` and `decode`.

/// HTTP filter: fault injection.
pub(crate) const FILTER_FAULT: &str = "envoy.filters.http.fault";
/// HTTP filter: routing, always last.
pub(crate) const FILTER_ROUTER: &str = "envoy.filters.http.router";
/// HTTP filter: authorization.
pub(crate) const FILTER_RBAC: &str = "envoy.filters.http.rbac";
/// HTTP and network filter: Istio's metrics. Stock Envoy does not know it, so it is marked optional.
pub(crate) const FILTER_STATS: &str = "istio.stats";
/// Network filter: HTTP.
pub(crate) const FILTER_HTTP: &str = "envoy.filters.network.http_connection_manager";
/// Network filter: bytes.
pub(crate) const FILTER_TCP: &str = "envoy.filters.network.tcp_proxy";
/// Network filter: authorization.
pub(crate) const FILTER_NETWORK_RBAC: &str = "envoy.filters.network.rbac";
/// Listener filter: original destination.
pub(crate) const FILTER_ORIGINAL_DST: &str = "envoy.filters.listener.original_dst";
/// Listener filter: ClientHello.
pub(crate) const FILTER_TLS_INSPECTOR: &str = "envoy.filters.listener.tls_inspector";
/// Listener filter: header of the PROXY protocol.
pub(crate) const FILTER_PROXY_HEADER: &str = "envoy.filters.listener.proxy_protocol";
/// Listener filter: plain HTTP.
pub(crate) const FILTER_HTTP_INSPECTOR: &str = "envoy.filters.listener.http_inspector";
/// Transport socket: TLS.
pub(crate) const SOCKET_TLS: &str = "envoy.transport_sockets.tls";
/// Transport socket: a header of the PROXY protocol, then another socket.
pub(crate) const SOCKET_PROXY_HEADER: &str = "envoy.transport_sockets.upstream_proxy_protocol";
/// Transport socket: none.
pub(crate) const SOCKET_RAW: &str = "envoy.transport_sockets.raw_buffer";
/// Access logger: file.
pub(crate) const LOG_FILE: &str = "envoy.access_loggers.file";
/// Retry predicate: not an endpoint that was tried.
pub(crate) const PREVIOUS_HOSTS: &str = "envoy.retry_host_predicates.previous_hosts";
/// Key of a cluster's HTTP options.
pub(crate) const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// Metadata of an endpoint that chooses its transport socket.
pub(crate) const SOCKET_MATCH: &str = "envoy.transport_socket_match";
/// Metadata key: an endpoint's TLS mode; value `istio` for mTLS.
pub(crate) const TLS_MODE: &str = "tlsMode";
/// Secret: the workload's own certificate.
pub(crate) const SECRET_WORKLOAD: &str = "default";
/// Secret: the mesh's roots.
pub(crate) const SECRET_ROOTS: &str = "ROOTCA";
/// Certificate provider of a gRPC client's own certificate.
pub(crate) const GRPC_PROVIDER: &str = "default";
/// Regex that takes a whole path: how the replacement of a whole path is written.
pub(crate) const WHOLE_PATH: &str = "^/.*$";
/// The machine's roots, where Envoy cannot find them by itself.
pub(crate) const MACHINE_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Largest body of a direct reply, in bytes.
pub(crate) const REPLY_BYTES_MAX: u32 = 1 << 20;

//! Group security.istio.io: who may call, and how callers prove who they are.
//!
//! Never here: meaning; a field kept here but not enforced is refused by `model`. Read by `from_json`, used by `model`.
//! Called by serde.

use std::collections::BTreeMap;

use schemars::{Schema, SchemaGenerator};

use super::Duration;
use super::selector::{ONE_TARGET, Selector, TargetRef};
use super::shape::{cel, names, one_of, shapes};

shapes! {
    /// Who may call some workloads.
    #[schemars(extend("oneOf" = one_of(&["provider"]), "x-kubernetes-validations" = cel(&[ONE_TARGET])))]
    pub struct AuthorizationPolicy {
        /// Workloads it is for; absent: all of the namespace.
        pub selector: Option<Selector>,
        /// Object it is attached to, old spelling.
        pub target_ref: Option<TargetRef>,
        /// Objects it is attached to.
        #[serde(default)]
        #[schemars(length(max = 16))]
        pub target_refs: Vec<TargetRef>,
        /// What becomes of a request that matches; absent: allowed.
        pub action: Option<AuthorizationAction>,
        /// Rules, any of which suffices; none: nothing matches.
        #[serde(default)]
        #[schemars(length(max = 512))]
        pub rules: Vec<AuthorizationRule>,
        /// Who decides, for `CUSTOM`.
        pub provider: Option<ExtensionProviderRef>,
    }

    /// Conditions that must all hold.
    pub struct AuthorizationRule {
        /// Who calls; any of them.
        #[schemars(length(max = 512))]
        pub from: Option<Vec<AuthorizationFrom>>,
        /// What is called; any of them.
        pub to: Option<Vec<AuthorizationTo>>,
        /// More conditions; all of them.
        #[serde(default)]
        pub when: Vec<AuthorizationCondition>,
    }

    /// Who calls.
    pub struct AuthorizationFrom {
        /// The caller.
        pub source: Option<AuthorizationSource>,
    }

    /// What is called.
    pub struct AuthorizationTo {
        /// The request.
        pub operation: Option<AuthorizationOperation>,
    }

    /// A caller: all fields given must match, each by any of its values.
    #[schemars(extend("x-kubernetes-validations" = cel(&[(
        "Cannot set serviceAccounts with namespaces or principals",
        "(has(self.serviceAccounts) || has(self.notServiceAccounts)) ? (!has(self.principals) &&\n!has(self.notPrincipals) && !has(self.namespaces) && !has(self.notNamespaces)) : true",
    )])))]
    pub struct AuthorizationSource {
        /// Identities by certificate.
        #[serde(default)]
        pub principals: Vec<String>,
        /// Identities that do not match.
        #[serde(default)]
        pub not_principals: Vec<String>,
        /// Identities by token, `issuer/subject`.
        #[serde(default)]
        pub request_principals: Vec<String>,
        /// Such that do not match.
        #[serde(default)]
        pub not_request_principals: Vec<String>,
        /// Namespaces.
        #[serde(default)]
        pub namespaces: Vec<String>,
        /// Namespaces that do not match.
        #[serde(default)]
        pub not_namespaces: Vec<String>,
        /// Service accounts, `[namespace/]name`.
        #[serde(default)]
        #[schemars(length(max = 16), inner(length(max = 320)))]
        pub service_accounts: Vec<String>,
        /// Such that do not match.
        #[serde(default)]
        #[schemars(length(max = 16), inner(length(max = 320)))]
        pub not_service_accounts: Vec<String>,
        /// Addresses of the connection.
        #[serde(default)]
        pub ip_blocks: Vec<String>,
        /// Such that do not match.
        #[serde(default)]
        pub not_ip_blocks: Vec<String>,
        /// Addresses by X-Forwarded-For or PROXY header.
        #[serde(default)]
        pub remote_ip_blocks: Vec<String>,
        /// Such that do not match.
        #[serde(default)]
        pub not_remote_ip_blocks: Vec<String>,
        /// Trust domains.
        #[serde(default)]
        pub trust_domains: Vec<String>,
        /// Such that do not match.
        #[serde(default)]
        pub not_trust_domains: Vec<String>,
    }

    /// A request: all fields given must match, each by any of its values.
    pub struct AuthorizationOperation {
        /// Hosts.
        #[serde(default)]
        pub hosts: Vec<String>,
        /// Hosts that do not match.
        #[serde(default)]
        pub not_hosts: Vec<String>,
        /// Ports of the workload.
        #[serde(default)]
        pub ports: Vec<String>,
        /// Ports that do not match.
        #[serde(default)]
        pub not_ports: Vec<String>,
        /// Methods.
        #[serde(default)]
        pub methods: Vec<String>,
        /// Methods that do not match.
        #[serde(default)]
        pub not_methods: Vec<String>,
        /// Paths.
        #[serde(default)]
        pub paths: Vec<String>,
        /// Paths that do not match.
        #[serde(default)]
        pub not_paths: Vec<String>,
    }

    /// A condition on an attribute.
    pub struct AuthorizationCondition {
        /// The attribute, for example `request.headers[x-user]`.
        pub key: String,
        /// Values, any of them.
        #[serde(default)]
        pub values: Vec<String>,
        /// Values that do not match.
        #[serde(default)]
        pub not_values: Vec<String>,
    }

    /// Names a provider of MeshConfig.
    pub struct ExtensionProviderRef {
        /// Its name.
        pub name: Option<String>,
    }

    /// Whether callers must use mutual TLS.
    #[schemars(extend("x-kubernetes-validations" = cel(&[(
        "portLevelMtls requires selector",
        "has(self.portLevelMtls) ? (((has(self.selector) && has(self.selector.matchLabels)) ? self.selector.matchLabels : {}).size() > 0) : true",
    )])))]
    pub struct PeerAuthentication {
        /// Workloads it is for; absent: all of the namespace.
        pub selector: Option<Selector>,
        /// For all ports.
        pub mtls: Option<MutualTls>,
        /// For single ports of the workload.
        #[serde(default)]
        #[schemars(schema_with = "port_level_mtls")]
        pub port_level_mtls: BTreeMap<String, MutualTls>,
    }

    /// Whether callers must use mutual TLS.
    pub struct MutualTls {
        /// Which way.
        pub mode: Option<MutualTlsMode>,
    }

    /// Which tokens are checked.
    #[schemars(extend("x-kubernetes-validations" = cel(&[ONE_TARGET])))]
    pub struct RequestAuthentication {
        /// Workloads it is for; absent: all of the namespace.
        pub selector: Option<Selector>,
        /// Object it is attached to, old spelling.
        pub target_ref: Option<TargetRef>,
        /// Objects it is attached to.
        #[serde(default)]
        #[schemars(length(max = 16))]
        pub target_refs: Vec<TargetRef>,
        /// The issuers whose tokens are checked.
        #[serde(default)]
        #[schemars(length(max = 4096))]
        pub jwt_rules: Vec<JwtRule>,
    }

    /// How tokens of one issuer are checked.
    #[schemars(extend("x-kubernetes-validations" = cel(&[(
        "only one of jwks or jwksUri can be set",
        "(has(self.jwksUri) ? 1 : 0) + (has(self.jwks_uri) ? 1 : 0) + (has(self.jwks) ? 1 : 0) <= 1",
    )])))]
    pub struct JwtRule {
        /// The issuer.
        #[schemars(length(min = 1))]
        pub issuer: Option<String>,
        /// Audiences, any of which suffices.
        #[serde(default)]
        #[schemars(inner(length(min = 1)))]
        pub audiences: Vec<String>,
        /// Where its keys are.
        #[schemars(length(min = 1, max = 2048), extend("x-kubernetes-validations" = cel(&[HTTP_URL])))]
        pub jwks_uri: Option<String>,
        /// Where its keys are, other spelling.
        #[serde(rename = "jwks_uri")]
        #[schemars(length(min = 1, max = 2048), extend("x-kubernetes-validations" = cel(&[HTTP_URL])))]
        pub jwks_uri_snake: Option<String>,
        /// Its keys.
        pub jwks: Option<String>,
        /// Headers to look in.
        #[serde(default)]
        pub from_headers: Vec<JwtHeader>,
        /// Query parameters to look in.
        #[serde(default)]
        #[schemars(inner(length(min = 1)))]
        pub from_params: Vec<String>,
        /// Cookies to look in.
        #[serde(default)]
        #[schemars(inner(length(min = 1)))]
        pub from_cookies: Vec<String>,
        /// Header that gets the payload.
        pub output_payload_to_header: Option<String>,
        /// Whether the token is passed on.
        pub forward_original_token: Option<bool>,
        /// Headers that get single claims.
        #[serde(default)]
        pub output_claim_to_headers: Vec<ClaimToHeader>,
        /// Limit for fetching keys.
        pub timeout: Option<Duration>,
        /// Claims that hold several values with blanks between.
        #[serde(default)]
        #[schemars(length(max = 64), inner(length(min = 1)))]
        pub space_delimited_claims: Vec<String>,
        /// Whether a request without token passes.
        pub presence: Option<JwtPresence>,
    }

    /// A header that may hold a token.
    pub struct JwtHeader {
        /// Name.
        #[schemars(length(min = 1))]
        pub name: String,
        /// What stands before the token.
        pub prefix: Option<String>,
    }

    /// A header that gets a claim.
    pub struct ClaimToHeader {
        /// Name of the header.
        #[schemars(length(min = 1), regex(pattern = "^[-_A-Za-z0-9]+$"))]
        pub header: String,
        /// Name of the claim.
        #[schemars(length(min = 1))]
        pub claim: String,
    }
}

names! {
    /// What becomes of a request that matches.
    pub enum AuthorizationAction {
        /// Allowed; then all others are not.
        Allow = "ALLOW",
        /// Refused, whatever else allows it.
        Deny = "DENY",
        /// Noted.
        Audit = "AUDIT",
        /// A provider decides.
        Custom = "CUSTOM",
    }

    /// Whether callers must use mutual TLS.
    pub enum MutualTlsMode {
        /// As the next wider policy has it.
        Unset = "UNSET",
        /// Must not.
        Disable = "DISABLE",
        /// May.
        Permissive = "PERMISSIVE",
        /// Must.
        Strict = "STRICT",
    }

    /// Whether a request without token passes.
    pub enum JwtPresence {
        /// It does.
        Optional = "OPTIONAL",
        /// It does not.
        Required = "REQUIRED",
    }
}

const HTTP_URL: (&str, &str) =
    ("url must have scheme http:// or https://", r#"url(self).getScheme() in ["http", "https"]"#);

fn port_level_mtls(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = generator.subschema_for::<BTreeMap<String, MutualTls>>();
    schema.insert("minProperties".into(), 1.into());
    schema.insert(
        "x-kubernetes-validations".into(),
        cel(&[("port must be between 1-65535", "self.all(key, 0 < int(key) && int(key) <= 65535)")]),
    );
    schema
}

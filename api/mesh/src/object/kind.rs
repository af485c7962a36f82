//! Every kind we read, and the one way from JSON to it.
//!
//! All served versions of a kind become one type; the path of a wrong field is exact.
//! Never here: the fields themselves, or what they mean. Uses the group files; `schema` knows which fields exist.
//! Called by `api-kube`'s sources, the admission webhook and `meshctl`.

use std::sync::Arc;

use api::note::ObjectRef;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Metadata, Object, ObjectError, core, extensions, networking, schema, security, telemetry};

/// What to do about a field that an Istio kind does not have. (Those of core kinds are dropped silently: we read only a part.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// Read the rest and list it.
    Report,
    /// Refuse the object.
    Refuse,
}

macro_rules! kinds {
    ($( $kind:ident ( $shape:ty ) $group:literal [ $($version:literal),+ ] $plural:literal $scope:ident, )*) => {
        /// A kind that is read.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $(
            #[doc = concat!("`", $group, "` ", stringify!($kind), ".")]
            $kind,
        )* }

        /// One stored object of any kind that is read; cheap to clone.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Stored { $(
            #[doc = concat!("A ", stringify!($kind), ".")]
            $kind(Arc<$shape>),
        )* }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$( Self::$kind, )*];

            /// The kind's name.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$kind => stringify!($kind), )* }
            }

            /// The API group; empty for the core group.
            pub const fn group(self) -> &'static str {
                match self { $( Self::$kind => $group, )* }
            }

            /// The versions that are read, newest first.
            pub const fn versions(self) -> &'static [&'static str] {
                match self { $( Self::$kind => &[$($version),+], )* }
            }

            /// The name in URLs.
            pub const fn plural(self) -> &'static str {
                match self { $( Self::$kind => $plural, )* }
            }

            /// Whether its objects live in namespaces.
            pub const fn namespaced(self) -> bool {
                match self { $( Self::$kind => kinds!(@$scope), )* }
            }
        }

        impl Stored {
            /// Which kind it is of.
            pub const fn kind(&self) -> Kind {
                match self { $( Self::$kind(_) => Kind::$kind, )* }
            }

            /// Its metadata.
            pub fn metadata(&self) -> &Metadata {
                match self { $( Self::$kind(object) => &object.metadata, )* }
            }

            fn read(kind: Kind, value: &Value, object: &ObjectRef) -> Result<Self, ObjectError> {
                Ok(match kind { $( Kind::$kind => Self::$kind(Arc::new(typed::<$shape>(value, object)?)), )* })
            }

            /// The object as JSON, with `apiVersion` (the newest) and `kind`.
            pub fn to_json(&self) -> Result<Value, serde_json::Error> {
                let mut value = match self { $( Self::$kind(object) => serde_json::to_value(&**object)?, )* };
                if let Value::Object(fields) = &mut value {
                    fields.insert("apiVersion".into(), self.kind().api_version().into());
                    fields.insert("kind".into(), self.kind().name().into());
                }
                Ok(value)
            }
        }

        $( impl From<$shape> for Stored {
            fn from(object: $shape) -> Self { Self::$kind(Arc::new(object)) }
        } )*
    };
    (@Namespaced) => { true };
    (@Cluster) => { false };
}

kinds! {
    VirtualService(Object<networking::VirtualService>) "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "virtualservices" Namespaced,
    DestinationRule(Object<networking::DestinationRule>) "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "destinationrules" Namespaced,
    Gateway(Object<networking::Gateway>) "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "gateways" Namespaced,
    ServiceEntry(Object<networking::ServiceEntry>) "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "serviceentries" Namespaced,
    Sidecar(Object<networking::Sidecar>) "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "sidecars" Namespaced,
    WorkloadEntry(Object<networking::WorkloadEntry>) "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "workloadentries" Namespaced,
    WorkloadGroup(Object<networking::WorkloadGroup>) "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "workloadgroups" Namespaced,
    EnvoyFilter(Object<networking::EnvoyFilter>) "networking.istio.io" ["v1alpha3"] "envoyfilters" Namespaced,
    ProxyConfig(Object<networking::ProxyConfig>) "networking.istio.io" ["v1beta1"] "proxyconfigs" Namespaced,
    AuthorizationPolicy(Object<security::AuthorizationPolicy>) "security.istio.io" ["v1", "v1beta1"] "authorizationpolicies" Namespaced,
    PeerAuthentication(Object<security::PeerAuthentication>) "security.istio.io" ["v1", "v1beta1"] "peerauthentications" Namespaced,
    RequestAuthentication(Object<security::RequestAuthentication>) "security.istio.io" ["v1", "v1beta1"] "requestauthentications" Namespaced,
    Telemetry(Object<telemetry::Telemetry>) "telemetry.istio.io" ["v1", "v1alpha1"] "telemetries" Namespaced,
    WasmPlugin(Object<extensions::WasmPlugin>) "extensions.istio.io" ["v1alpha1"] "wasmplugins" Namespaced,
    TrafficExtension(Object<extensions::TrafficExtension>) "extensions.istio.io" ["v1alpha1"] "trafficextensions" Namespaced,
    Service(core::Service) "" ["v1"] "services" Namespaced,
    Endpoints(core::Endpoints) "" ["v1"] "endpoints" Namespaced,
    EndpointSlice(core::EndpointSlice) "discovery.k8s.io" ["v1"] "endpointslices" Namespaced,
    Pod(core::Pod) "" ["v1"] "pods" Namespaced,
    Namespace(core::Namespace) "" ["v1"] "namespaces" Cluster,
    Node(core::Node) "" ["v1"] "nodes" Cluster,
    Secret(core::Secret) "" ["v1"] "secrets" Namespaced,
    ConfigMap(core::ConfigMap) "" ["v1"] "configmaps" Namespaced,
}

impl Kind {
    /// The kind of that `apiVersion` and name, in any version that is read.
    pub fn find(api_version: &str, kind: &str) -> Option<Self> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        Self::ALL.iter().copied().find(|k| k.name() == kind && k.group() == group && k.versions().contains(&version))
    }

    /// `group/version` of the newest version.
    pub fn api_version(self) -> String {
        let version = self.versions().first().copied().unwrap_or_default();
        if self.group().is_empty() { version.to_owned() } else { format!("{}/{version}", self.group()) }
    }

    /// Whether it is one of Istio's own kinds.
    pub fn is_istio(self) -> bool {
        self.group().ends_with(".istio.io")
    }
}

impl Stored {
    /// Its kind, namespace and name.
    pub fn reference(&self) -> ObjectRef {
        let metadata = self.metadata();
        ObjectRef::new(self.kind().name(), metadata.namespace.clone(), metadata.name.clone())
    }
}

/// Reads one object; with it come the paths of the fields that its kind does not have (Istio kinds only).
///
/// # Errors
/// Where the value has no kind that is read, or a field has the wrong type; under [`Strictness::Refuse`] also for unknown fields.
pub fn from_json(mut value: Value, strictness: Strictness) -> Result<(Stored, Vec<String>), ObjectError> {
    let fields = value.as_object().ok_or(ObjectError::NotAnObject)?;
    let text = |field: Option<&Value>, name: &'static str| match field.and_then(Value::as_str) {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(ObjectError::Unnamed { field: name }),
    };
    let api_version = text(fields.get("apiVersion"), "apiVersion")?;
    let kind = text(fields.get("kind"), "kind")?;
    let metadata = fields.get("metadata");
    let name = text(metadata.and_then(|m| m.get("name")), "metadata.name")?;
    let namespace = metadata.and_then(|m| m.get("namespace")).and_then(Value::as_str).unwrap_or_default();
    let object = ObjectRef::new(kind.as_str(), namespace, name);
    let Some(kind) = Kind::find(&api_version, &kind) else {
        return Err(ObjectError::UnknownKind { object, api_version });
    };
    let unknown = schema::tidy(kind, &mut value);
    if strictness == Strictness::Refuse && !unknown.is_empty() {
        return Err(ObjectError::UnknownFields { object, paths: unknown });
    }
    Ok((Stored::read(kind, &value, &object)?, unknown))
}

/// Reads the typed shape; only where that fails is it read again, slower, to learn the path.
pub(crate) fn typed<T: DeserializeOwned>(value: &Value, object: &ObjectRef) -> Result<T, ObjectError> {
    if let Ok(shape) = T::deserialize(value) {
        return Ok(shape);
    }
    serde_path_to_error::deserialize(value).map_err(|error| ObjectError::Field {
        object: object.clone(),
        path: error.path().to_string(),
        source: error.into_inner(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[allow(clippy::needless_pass_by_value, reason = "reads better in the tests")]
    fn read(kind: &str, api_version: &str, spec: Value) -> Result<(Stored, Vec<String>), ObjectError> {
        let object = json!({
            "apiVersion": api_version, "kind": kind, "metadata": { "name": "reviews", "namespace": "shop" }, "spec": spec,
        });
        from_json(object, Strictness::Report)
    }

    fn wrong(spec: Value) -> String {
        read("VirtualService", "networking.istio.io/v1", spec).unwrap_err().to_string()
    }

    #[test]
    fn all_versions_are_one_type() {
        let versions = ["v1", "v1beta1", "v1alpha3"].map(|version| format!("networking.istio.io/{version}"));
        let read = versions.map(|version| read("VirtualService", &version, json!({ "hosts": ["reviews"] })).unwrap().0);
        assert!(read.iter().all(|stored| stored == &read[0]));
        assert_eq!(read[0].reference().to_string(), "VirtualService/reviews.shop");
    }

    #[test]
    fn a_wrong_type_names_object_and_field() {
        assert_eq!(
            wrong(json!({ "http": [{ "route": [] }, { "timeout": 5 }] })),
            "VirtualService/reviews.shop: spec.http[1].timeout: invalid type: integer `5`, expected a duration such as \"1.5s\"",
        );
        assert!(wrong(json!({ "hosts": "reviews" })).contains("spec.hosts: invalid type: string \"reviews\""));
        assert!(
            wrong(json!({ "http": [{ "retries": { "attempts": "3" } }] })).contains("spec.http[0].retries.attempts: ")
        );
        assert!(wrong(json!({ "http": [{ "match": [{ "port": -1 }] }] })).contains("spec.http[0].match[0].port: "));
    }

    #[test]
    fn a_missing_field_is_named() {
        let text = wrong(json!({ "http": [{ "route": [{ "destination": { "subset": "v1" } }] }] }));
        assert_eq!(text, "VirtualService/reviews.shop: spec.http[0].route[0].destination: missing field `host`",);
    }

    #[test]
    fn an_unknown_name_lists_the_known() {
        let error =
            read("PeerAuthentication", "security.istio.io/v1", json!({ "mtls": { "mode": "strict" } })).unwrap_err();
        assert!(
            error.to_string().contains("spec.mtls.mode: unknown variant `strict`, expected one of `UNSET`"),
            "{error}"
        );
    }

    #[test]
    fn unknown_fields_are_listed_or_refused() {
        let spec = json!({ "hosts": ["a"], "http": [{ "timeOut": "5s", "match": [{ "headers": { "x": { "exakt": "y" } } }] }], "hosst": 1 });
        let (_, unknown) = read("VirtualService", "networking.istio.io/v1", spec.clone()).unwrap();
        assert_eq!(unknown, ["spec.http[0].timeOut", "spec.http[0].match[0].headers.x.exakt", "spec.hosst"]);
        let object = json!({ "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": { "name": "r" }, "spec": spec });
        let error = from_json(object, Strictness::Refuse).unwrap_err();
        assert!(error.to_string().starts_with("VirtualService/r: unknown fields spec.http[0].timeOut, "), "{error}");
    }

    #[test]
    fn free_form_values_and_status_may_hold_anything() {
        let spec = json!({ "url": "oci://x", "pluginConfig": { "any": { "thing": [1] } } });
        let mut object = json!({ "apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin", "metadata": { "name": "r" }, "spec": spec });
        object["status"] = json!({ "anything": { "goes": true } });
        let (stored, unknown) = from_json(object, Strictness::Refuse).unwrap();
        assert!(unknown.is_empty());
        let Stored::WasmPlugin(plugin) = stored else { panic!("read as another kind") };
        assert_eq!(plugin.spec.plugin_config, Some(json!({ "any": { "thing": [1] } })));
    }

    #[test]
    fn core_kinds_drop_what_is_not_read_and_nulls() {
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "ports": null, "more": 1,
            "metadata": { "name": "a-1", "namespace": "shop", "managedFields": [], "creationTimestamp": null },
            "endpoints": [{ "addresses": ["198.18.0.7"], "conditions": { "ready": true }, "deprecatedTopology": {} }],
        });
        let (Stored::EndpointSlice(slice), unknown) = from_json(slice, Strictness::Refuse).unwrap() else {
            panic!("read as another kind")
        };
        assert!(unknown.is_empty() && slice.ports.is_empty());
        assert_eq!(slice.endpoints[0].addresses, ["198.18.0.7"]);
        assert_eq!(slice.endpoints[0].conditions.ready, Some(true));
    }

    #[test]
    fn what_is_no_object_of_ours_is_refused() {
        for (value, text) in [
            (json!([]), "expected an object with apiVersion, kind and metadata"),
            (json!({ "kind": "Service" }), "apiVersion is missing or is not text"),
            (json!({ "apiVersion": "v1", "kind": "Service" }), "metadata.name is missing or is not text"),
            (
                json!({ "apiVersion": "v2", "kind": "Service", "metadata": { "name": "a" } }),
                "Service/a: no such kind: v2 Service",
            ),
        ] {
            assert_eq!(from_json(value, Strictness::Report).unwrap_err().to_string(), text);
        }
    }
}

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

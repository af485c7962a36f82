//! Profiles: which components, and the values of their placeholders; and what `--set` may change.
//!
//! Never here: rendering. Called by the verbs `install`, `uninstall` and `manifest`.

use super::{Component, Placeholder};

/// The release that images are tagged with.
const TAG: &str = concat!("v", env!("CARGO_PKG_VERSION"));

/// Which components are installed, and with which values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Profile {
    /// `default`, `demo`, …
    pub(crate) name: &'static str,
    /// In the order they are installed.
    pub(crate) components: Vec<Component>,
    /// Namespace of the mesh.
    pub(crate) namespace: String,
    hub: String,
    tag: String,
    trust_domain: String,
    access_log_file: String,
    strict: bool,
    outbound: String,
}

/// A `--set NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    name: String,
    value: String,
}

/// Why a setting is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SettingError {
    /// Not `NAME=VALUE`.
    #[error("{0:?} is not of the form NAME=VALUE")]
    Form(String),
    /// No such profile.
    #[error("there is no profile {0:?}; there are: default, demo, demo-auth, minimal, empty")]
    Profile(String),
    /// Not a setting.
    #[error(
        "{0:?} cannot be set; settings are: profile, hub, tag, components.{{ingressGateways,egressGateways}}[0].enabled, meshConfig.{{accessLogFile,trustDomain,authPolicy,outboundTrafficPolicy.mode}}, values.global.{{hub,tag,istioNamespace}}"
    )]
    Unknown(String),
    /// Not one of the values that a setting takes.
    #[error("{name}={value}: expected {expected}")]
    Value {
        /// Setting.
        name: String,
        /// What was given.
        value: String,
        /// What it takes.
        expected: &'static str,
    },
}

impl std::str::FromStr for Setting {
    type Err = SettingError;
    fn from_str(raw: &str) -> Result<Self, SettingError> {
        let (name, value) = raw.split_once('=').ok_or_else(|| SettingError::Form(raw.to_owned()))?;
        Ok(Self { name: name.trim().to_owned(), value: value.trim().to_owned() })
    }
}

impl Profile {
    /// Names of all profiles.
    pub(crate) const NAMES: [&'static str; 5] = ["default", "demo", "demo-auth", "minimal", "empty"];

    /// A profile by name.
    pub(crate) fn named(name: &str) -> Result<Self, SettingError> {
        use Component::{Citadel, IngressGateway, Injector, Mesh, Pilot};
        let (name, components) = match name {
            "default" => ("default", vec![Mesh, Citadel, Pilot, Injector, IngressGateway]),
            "demo" => ("demo", Component::ALL.to_vec()),
            "demo-auth" => ("demo-auth", Component::ALL.to_vec()),
            "minimal" => ("minimal", vec![Mesh, Citadel, Pilot, Injector]),
            "empty" => ("empty", Vec::new()),
            _ => return Err(SettingError::Profile(name.to_owned())),
        };
        let demo = name.starts_with("demo");
        Ok(Self {
            name,
            components,
            namespace: "istio-system".to_owned(),
            hub: "docker.io/ferromesh".to_owned(),
            tag: TAG.to_owned(),
            trust_domain: "cluster.local".to_owned(),
            access_log_file: if demo { "/dev/stdout".to_owned() } else { String::new() },
            strict: name == "demo-auth",
            outbound: "ALLOW_ANY".to_owned(),
        })
    }

    /// The profile that settings ask for, `default` where they name none; every setting is checked.
    pub(crate) fn from_settings(namespace: &str, settings: &[Setting]) -> Result<Self, SettingError> {
        let named = settings.iter().rev().find(|setting| setting.name == "profile");
        let mut profile = Self::named(named.map_or("default", |setting| &setting.value))?;
        namespace.clone_into(&mut profile.namespace);
        for setting in settings {
            profile.set(setting)?;
        }
        Ok(profile)
    }

    fn set(&mut self, setting: &Setting) -> Result<(), SettingError> {
        let value = setting.value.clone();
        let wrong = |expected| SettingError::Value { name: setting.name.clone(), value: value.clone(), expected };
        match setting.name.as_str() {
            "profile" => {}
            "hub" | "values.global.hub" | "global.hub" => self.hub = value,
            "tag" | "values.global.tag" | "global.tag" => self.tag = value,
            "values.global.istioNamespace" | "global.istioNamespace" => self.namespace = value,
            "meshConfig.accessLogFile" => self.access_log_file = value,
            "meshConfig.trustDomain" => self.trust_domain = value,
            "meshConfig.authPolicy" => match value.as_str() {
                "NONE" => self.strict = false,
                "MUTUAL_TLS" => self.strict = true,
                _ => return Err(wrong("NONE or MUTUAL_TLS")),
            },
            "global.mtls.enabled" | "values.global.mtls.enabled" => {
                self.strict = boolean(&value).ok_or_else(|| wrong("true or false"))?
            }
            "meshConfig.outboundTrafficPolicy.mode" => match value.as_str() {
                "ALLOW_ANY" | "REGISTRY_ONLY" => self.outbound = value,
                _ => return Err(wrong("ALLOW_ANY or REGISTRY_ONLY")),
            },
            "components.ingressGateways[0].enabled" | "gateways.istio-ingressgateway.enabled" => {
                self.switch(Component::IngressGateway, boolean(&value).ok_or_else(|| wrong("true or false"))?);
            }
            "components.egressGateways[0].enabled" | "gateways.istio-egressgateway.enabled" => {
                self.switch(Component::EgressGateway, boolean(&value).ok_or_else(|| wrong("true or false"))?);
            }
            _ => return Err(SettingError::Unknown(setting.name.clone())),
        }
        Ok(())
    }

    fn switch(&mut self, component: Component, on: bool) {
        self.components.retain(|one| *one != component);
        if on {
            self.components.push(component);
            self.components.sort();
        }
    }

    /// What a placeholder stands for.
    pub(crate) fn value(&self, placeholder: Placeholder) -> String {
        match placeholder {
            Placeholder::Namespace => self.namespace.clone(),
            Placeholder::Hub => self.hub.clone(),
            Placeholder::Tag => self.tag.clone(),
            Placeholder::TrustDomain => self.trust_domain.clone(),
            Placeholder::AccessLogFile => self.access_log_file.clone(),
            Placeholder::AuthPolicy => if self.strict { "MUTUAL_TLS" } else { "NONE" }.to_owned(),
            Placeholder::OutboundTrafficPolicy => self.outbound.clone(),
        }
    }
}

fn boolean(text: &str) -> Option<bool> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(settings: &[&str]) -> Result<Profile, SettingError> {
        let settings: Result<Vec<Setting>, _> = settings.iter().map(|text| text.parse()).collect();
        Profile::from_settings("istio-system", &settings?)
    }

    #[test]
    fn a_setting_nobody_knows_is_refused() {
        assert_eq!(profile(&["meshConfig.zork=1"]), Err(SettingError::Unknown("meshConfig.zork".to_owned())));
        assert_eq!(profile(&["profile=big"]), Err(SettingError::Profile("big".to_owned())));
        assert!(matches!(profile(&["meshConfig.authPolicy=yes"]), Err(SettingError::Value { .. })));
    }

    #[test]
    fn gateways_are_switched_on_their_own() {
        let components = profile(&["components.egressGateways[0].enabled=true"]).unwrap().components;
        assert_eq!(components.last(), Some(&Component::EgressGateway));
        let components = profile(&["profile=demo", "components.ingressGateways[0].enabled=false"]).unwrap().components;
        assert!(!components.contains(&Component::IngressGateway));
    }
}

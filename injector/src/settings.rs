//! The settings of injection as they are now: two ConfigMaps, watched.
//!
//! Settings that cannot be read are told and the last good ones stay. Never here: what they mean (`api_mesh::inject`).
//! One task, run by `main`; `review` reads the current settings for each Pod.

use std::sync::Arc;

use api_kube::{
    source::{Event, Selection, Source},
    yaml,
};
use api_mesh::{
    inject::InjectConfig,
    object::{Kind, Stored},
};
use api_rt::ready::Gate;
use serde_json::Value;
use tokio::sync::watch;

/// The current settings; none until they were read once.
pub(crate) type Current = watch::Receiver<Option<Arc<InjectConfig>>>;

/// The texts that settings are made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Texts {
    /// Key `config` of the injector's ConfigMap.
    config: Option<String>,
    /// Key `values` of the injector's ConfigMap.
    values: Option<String>,
    /// Key `mesh` of the mesh's ConfigMap.
    mesh: Option<String>,
}

fn document(name: &str, text: Option<&str>) -> Result<Value, String> {
    let mut documents = yaml::documents(text.unwrap_or_default()).map_err(|error| format!("{name}: {error}"))?;
    Ok(documents.pop().map_or_else(|| Value::Object(serde_json::Map::new()), |document| document.value))
}

impl Texts {
    fn read(&self) -> Result<InjectConfig, String> {
        let config = document("config", self.config.as_deref())?;
        let values = document("values", self.values.as_deref())?;
        let mesh = document("mesh", self.mesh.as_deref())?;
        InjectConfig::new(&config, &values, &mesh).map_err(|error| error.to_string())
    }
}

/// Which ConfigMaps.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    /// Their namespace.
    pub(crate) namespace: String,
    /// The injector's.
    pub(crate) injection: String,
    /// The mesh's.
    pub(crate) mesh: String,
}

fn take(texts: &mut Texts, names: &Names, event: &Event) {
    match event {
        Event::Apply(Stored::ConfigMap(map)) if map.metadata.name == names.injection => {
            texts.config = map.data.get("config").cloned();
            texts.values = map.data.get("values").cloned();
        }
        Event::Apply(Stored::ConfigMap(map)) if map.metadata.name == names.mesh => {
            texts.mesh = map.data.get("mesh").cloned();
        }
        // A deleted ConfigMap keeps its last settings: Pods go on being injected while it is replaced.
        Event::Apply(_) | Event::Delete(_) | Event::Broken(_) | Event::Mended(_) | Event::Synced => {}
    }
}

/// Keeps the settings current until dropped; opens the gate when they were read once.
pub(crate) async fn keep(
    client: kube::Client,
    names: Names,
    current: watch::Sender<Option<Arc<InjectConfig>>>,
    gate: Gate,
) {
    let map = |name: &str| {
        Selection::of(Kind::ConfigMap).within(&names.namespace).with_fields(&format!("metadata.name={name}"))
    };
    let mut source = Source::cluster(&client, vec![map(&names.injection), map(&names.mesh)]);
    let (mut texts, mut synced, mut gate) = (Texts::default(), false, Some(gate));
    while let Some(event) = source.next().await {
        let before = texts.clone();
        take(&mut texts, &names, &event);
        let first = event == Event::Synced;
        synced |= first;
        if !synced || (texts == before && !first) {
            continue;
        }
        if texts.config.is_none() && texts.values.is_none() {
            if let Some(gate) = &gate {
                gate.because(format!("settings: ConfigMap {}/{} is absent or empty", names.namespace, names.injection));
            }
            continue;
        }
        match texts.read() {
            Ok(config) => {
                tracing::info!(image = config.proxy_image, "settings read");
                current.send_replace(Some(Arc::new(config)));
                if let Some(gate) = gate.take() {
                    gate.open();
                }
            }
            Err(error) => {
                tracing::error!(error, "settings cannot be read; the last good ones stay");
                if let Some(gate) = &gate {
                    gate.because(format!("settings: {error}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_yaml_in_config_maps() {
        let texts = Texts {
            config: Some("policy: disabled\n".into()),
            values: Some("{\"global\": {\"hub\": \"h\", \"tag\": \"t\"}}".into()),
            mesh: Some("trustDomain: mine\n".into()),
        };
        let config = texts.read().unwrap();
        assert_eq!(
            (config.by_default, config.proxy_image.as_str(), config.trust_domain.as_str()),
            (false, "h/proxyv2:t", "mine")
        );
        let broken = Texts { values: Some("{ a: [".into()), ..texts };
        assert!(broken.read().unwrap_err().starts_with("values: line 1"));
    }
}

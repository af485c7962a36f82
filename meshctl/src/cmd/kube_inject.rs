//! `meshctl kube-inject -f FILE`: prints the objects of a file with a proxy in every Pod they will make.
//!
//! The settings are those of the installed mesh, or of files. Never here: how a Pod is injected (`api_mesh::inject`, which
//! the webhook asks too). Called by `main`.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use api_kube::yaml;
use api_mesh::inject::{InjectConfig, workload};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use serde_json::{Map, Value};

use crate::{cluster::Target, fail, render};

/// Flags of `kube-inject`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// File of the objects; "-": standard input.
    #[arg(short = 'f', long = "filename")]
    file: PathBuf,
    /// Where to write; standard output if absent.
    #[arg(short = 'o', long = "output")]
    output: Option<PathBuf>,
    /// Settings of injection: a file instead of the ConfigMap's key "config".
    #[arg(long = "injectConfigFile", alias = "inject-config-file")]
    inject_config: Option<PathBuf>,
    /// Values: a file instead of the ConfigMap's key "values".
    #[arg(long = "valuesFile", alias = "values-file")]
    values: Option<PathBuf>,
    /// Settings of the mesh: a file instead of the ConfigMap's key "mesh".
    #[arg(long = "meshConfigFile", alias = "mesh-config-file")]
    mesh_config: Option<PathBuf>,
    /// ConfigMap of the settings of injection.
    #[arg(long = "injectConfigMapName", default_value = "istio-sidecar-injector")]
    inject_map: String,
    /// ConfigMap of the settings of the mesh.
    #[arg(long = "meshConfigMapName", default_value = "istio")]
    mesh_map: String,
}

fn read(path: &Path) -> anyhow::Result<String> {
    let named = || format!("could not read {}", path.display());
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).with_context(named)?;
        return Ok(text);
    }
    std::fs::read_to_string(path).with_context(named)
}

fn settings(name: &str, text: &str) -> anyhow::Result<Value> {
    let mut documents = yaml::documents(text).with_context(|| format!("could not read {name}"))?;
    Ok(documents.pop().map_or_else(|| Value::Object(Map::new()), |document| document.value))
}

/// The settings: from files, and from the cluster what no file gives.
async fn config(target: &Target, args: &Args) -> anyhow::Result<InjectConfig> {
    let file = |path: &Option<PathBuf>| path.as_deref().map(read).transpose();
    let (inject, values, mesh) = (file(&args.inject_config)?, file(&args.values)?, file(&args.mesh_config)?);
    if let (Some(inject), Some(values), Some(mesh)) = (&inject, &values, &mesh) {
        return made(inject, values, mesh);
    }
    let maps: Api<ConfigMap> = Api::namespaced(target.client().await?, &target.istio_namespace);
    let text = async |given: Option<String>, name: &str, key: &str| {
        if let Some(text) = given {
            return Ok(text);
        }
        let found = maps.get_opt(name).await.with_context(|| format!("could not read ConfigMap {name}"))?;
        let help = "is the mesh installed? or give --injectConfigFile, --valuesFile and --meshConfigFile";
        let missing =
            || fail::coded(fail::UNREACHABLE, format!("no ConfigMap {}/{name}: {help}", target.istio_namespace));
        value(found.ok_or_else(missing)?, name, key)
    };
    let inject = text(inject, &args.inject_map, "config").await?;
    let values = text(values, &args.inject_map, "values").await?;
    made(&inject, &values, &text(mesh, &args.mesh_map, "mesh").await?)
}

fn made(inject: &str, values: &str, mesh: &str) -> anyhow::Result<InjectConfig> {
    let inject = settings("the settings of injection", inject)?;
    let values = settings("the values", values)?;
    let mesh = settings("the settings of the mesh", mesh)?;
    Ok(InjectConfig::new(&inject, &values, &mesh)?)
}

/// A key of a ConfigMap. Without it, defaults would be taken for what is installed.
fn value(map: ConfigMap, name: &str, key: &str) -> anyhow::Result<String> {
    let found = map.data.and_then(|mut data| data.remove(key));
    found.ok_or_else(|| fail::coded(fail::FAILED, format!("missing configuration map key {key:?} in {name:?}")))
}

/// The objects of a text with proxies, as YAML; and what their writer should know.
fn injected(text: &str, namespace: &str, config: &InjectConfig) -> anyhow::Result<(String, Vec<String>)> {
    let (mut output, mut notes) = (String::new(), Vec::new());
    for document in yaml::documents(text)? {
        let done = workload(&document.value, namespace, config).with_context(|| format!("line {}", document.line))?;
        if !output.is_empty() {
            output.push_str("---\n");
        }
        let yaml = serde_saphyr::to_string(&done.object)?;
        output.push_str(&yaml);
        if !yaml.ends_with('\n') {
            output.push('\n');
        }
        notes.extend(done.notes);
    }
    Ok((output, notes))
}

/// Prints them.
#[expect(clippy::print_stderr, reason = "standard output is the objects'")]
pub(crate) async fn run(target: &Target, args: Args) -> anyhow::Result<ExitCode> {
    let text = read(&args.file)?;
    let config = config(target, &args).await?;
    let (output, notes) = injected(&text, target.namespace(), &config)
        .with_context(|| format!("could not inject {}", args.file.display()))?;
    for note in notes {
        eprintln!("{note}");
    }
    match &args.output {
        None => render::print(&output)?,
        Some(path) => std::fs::write(path, output).with_context(|| format!("could not write {}", path.display()))?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_come_out_as_yaml_that_reads_back_the_same() {
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels: {on: \"true\", n: \"1e3\"}\nspec:\n  containers:\n  - {name: app, image: a, args: [\"\", \"no\", \"a\\nb\", \"0x1\"]}\n";
        let config = InjectConfig::plain();
        let (output, notes) = injected(text, "default", &config).unwrap();
        assert!(notes.is_empty(), "{notes:?}");
        let (before, after) = (yaml::documents(text).unwrap(), yaml::documents(&output).unwrap());
        assert_eq!(after.len(), 2);
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(after.value, workload(&before.value, "default", &config).unwrap().object);
        }
    }

    #[test]
    fn a_missing_key_is_no_default() {
        let map = || ConfigMap { data: Some([("config".to_owned(), "x".to_owned())].into()), ..ConfigMap::default() };
        assert_eq!(value(map(), "m", "config").unwrap(), "x");
        let error = value(map(), "m", "values").unwrap_err().to_string();
        assert_eq!(error, "missing configuration map key \"values\" in \"m\"");
    }

    #[test]
    fn an_error_names_the_line_and_the_annotation() {
        let text =
            "kind: Pod\nmetadata: {annotations: {sidecar.istio.io/interceptionMode: x}}\nspec: {containers: []}\n";
        let error = format!("{:#}", injected(text, "default", &InjectConfig::plain()).unwrap_err());
        assert!(error.starts_with("line 1: annotation sidecar.istio.io/interceptionMode: "), "{error}");
    }
}

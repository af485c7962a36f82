//! The Helm chart, made from the same component files: a placeholder becomes a value, a component gets a switch.
//!
//! Its `templates/crds.yaml` and `crds-old.yaml` are links to `deploy/crds`. Never here: objects of its own. Called by `meshctl manifest chart`, which `cargo xtask gen` runs.

use super::{Component, Placeholder, filled};

/// The chart's files: name and text.
pub(crate) fn chart() -> Vec<(String, String)> {
    let mut files = vec![("Chart.yaml".to_owned(), chart_yaml()), ("values.yaml".to_owned(), VALUES.to_owned())];
    files.extend(Component::ALL.map(|component| (format!("templates/{}.yaml", file(component)), template(component))));
    files
}

fn chart_yaml() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "apiVersion: v1\nname: istio\nversion: {version}\nappVersion: {version}\n\
         description: The mesh's control plane and gateways, as `meshctl install` puts them into a cluster.\n"
    )
}

const VALUES: &str = "# What `meshctl install --set` sets, under the names of Istio's chart.
global:
  hub: docker.io/ferromesh
  tag: \"\"            # the chart's version when empty
  mtls:
    enabled: false   # true: every workload refuses plaintext
meshConfig:
  accessLogFile: /dev/stdout
  trustDomain: cluster.local
  outboundTrafficPolicy:
    mode: ALLOW_ANY
gateways:
  istio-ingressgateway:
    enabled: true
  istio-egressgateway:
    enabled: true
";

fn file(component: Component) -> &'static str {
    match component {
        Component::Mesh => "mesh",
        Component::Citadel => "citadel",
        Component::Pilot => "pilot",
        Component::Injector => "injector",
        Component::IngressGateway => "ingressgateway",
        Component::EgressGateway => "egressgateway",
    }
}

fn template(component: Component) -> String {
    let text = filled(&escaped(component.file()), |placeholder| value(placeholder).to_owned());
    let switch = match component {
        Component::IngressGateway => "istio-ingressgateway",
        Component::EgressGateway => "istio-egressgateway",
        Component::Mesh | Component::Citadel | Component::Pilot | Component::Injector => return text,
    };
    format!("{{{{- if (index .Values.gateways \"{switch}\").enabled }}}}\n{text}{{{{- end }}}}\n")
}

/// Text with Helm's own brackets made harmless.
fn escaped(text: &str) -> String {
    text.replace("{{", "\u{1}").replace("}}", "\u{2}").replace('\u{1}', "{{ \"{{\" }}").replace('\u{2}', "{{ \"}}\" }}")
}

fn value(placeholder: Placeholder) -> &'static str {
    match placeholder {
        Placeholder::Namespace => "{{ .Release.Namespace }}",
        Placeholder::Hub => "{{ .Values.global.hub }}",
        Placeholder::Tag => "{{ .Values.global.tag | default (printf \"v%s\" .Chart.AppVersion) }}",
        Placeholder::TrustDomain => "{{ .Values.meshConfig.trustDomain }}",
        Placeholder::AccessLogFile => "{{ .Values.meshConfig.accessLogFile }}",
        Placeholder::AuthPolicy => "{{ if .Values.global.mtls.enabled }}MUTUAL_TLS{{ else }}NONE{{ end }}",
        Placeholder::OutboundTrafficPolicy => "{{ .Values.meshConfig.outboundTrafficPolicy.mode }}",
    }
}

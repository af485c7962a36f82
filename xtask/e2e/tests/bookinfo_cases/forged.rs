//! Identities that are false: certificates of elsewhere, requests for another's name, tokens for another audience.
//!
//! Each is tried beside a true one, which is taken. Never here: how programs check. Called by the suite `bookinfo`.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use api_rt::{
    identity::{Authority as _, CaClient, CaOptions},
    tls::CertificateSlot,
};
use base64::Engine as _;
use e2e::{
    authority::{self, Authority, Signed},
    beside::Beside,
    bookinfo::Bookinfo,
    judge,
    kubectl::Said,
    sandbox::until,
    suite::Outcome,
};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, IsCa, KeyPair};

use super::LIMIT;

const CALLER: &str = "spiffe://cluster.local/ns/default/sa/bookinfo-productpage";
const STRICT: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\nspec: {mtls: {mode: STRICT}}\n";

/// The mesh's own authority, with the key that its administrator may read.
fn mesh_authority(b: &Bookinfo) -> Result<Authority> {
    let read = |field: &str| -> Result<String> {
        let path = format!("jsonpath={{.data.{field}}}");
        let text = b.kubectl.within("istio-system").ok(&["get", "secret", "istio-ca-secret", "-o", &path])?;
        Ok(String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text.trim())?)?)
    };
    Authority::of(&read("ca-cert\\.pem")?, &read("ca-key\\.pem")?)
}

pub(crate) fn certificates(b: &Bookinfo) -> Result<Outcome> {
    if judge::program("openssl").is_none() {
        return Ok(Outcome::NotRun("openssl is not installed".to_owned()));
    }
    let mesh = mesh_authority(b)?;
    let pod = b.kubectl.ok(&["get", "pod", "-l", "app=details", "-o", "jsonpath={.items[0].status.podIP}"])?;
    b.kubectl.apply(STRICT)?;
    let call = |signed: &Signed| call(b, &pod, signed);
    let own = mesh.sign(authority::uri(CALLER)?)?;
    until("the mesh's own certificate is taken", LIMIT, || {
        let said = call(&own)?;
        ensure!(said.out.contains("HTTP/1.1 200"), "{}", said.all());
        Ok(())
    })?;
    let elsewhere = Authority::new()?;
    let refused = [
        ("another trust domain", mesh.sign(authority::uri(&CALLER.replace("cluster.local", "elsewhere.example"))?)?),
        ("another root", elsewhere.sign(authority::uri(CALLER)?)?),
        ("no SPIFFE identity", mesh.sign(authority::dns("productpage.default.svc")?)?),
    ];
    for (what, signed) in &refused {
        let said = call(signed)?;
        ensure!(!said.out.contains("HTTP/"), "a certificate of {what} is served:\n{}", said.all());
        ensure!(said.err.contains("alert"), "a certificate of {what} is not refused by an alert:\n{}", said.all());
    }
    ensure!(call(&own)?.out.contains("HTTP/1.1 200"), "the mesh's own certificate is no longer taken");
    b.kubectl.ok(&["delete", "peerauthentication", "default"])?;
    Ok(Outcome::Passed)
}

/// One request to a sidecar with this certificate, by openssl in the sandbox's network.
fn call(b: &Bookinfo, pod: &str, signed: &Signed) -> Result<Said> {
    // The shell's user is another than ours: what it needs goes in by standard input.
    let script = format!(
        "d=$(mktemp -d) && cat >$d/all.pem && printf 'GET /details/0 HTTP/1.1\\r\\nHost: details:9080\\r\\nConnection: close\\r\\n\\r\\n' | \
         timeout 10 openssl s_client -connect {pod}:9080 -alpn istio -cert $d/all.pem -key $d/all.pem -quiet; rm -r $d"
    );
    Said::fed(&mut b.sandbox.command(&["shell", "-c", &script]), &format!("{}{}", signed.chain, signed.key))
}

/// Citadel's own count of certificates that it signed.
fn signed(b: &Bookinfo) -> Result<u64> {
    let script = "curl -sS -m 5 http://istio-citadel.istio-system:15014/metrics | grep '^citadel_server_success_cert_issuance_count'";
    let said = b.sandbox.shell(script)?.ok()?;
    said.split_whitespace().last().and_then(|value| value.parse().ok()).context(said.clone())
}

/// Where certificates are asked for, and by whom.
struct Desk<'a> {
    beside: Beside,
    name: &'static str,
    folder: &'a Path,
}

impl<'a> Desk<'a> {
    /// Citadel's, or pilot's, which passes on.
    fn of(b: &Bookinfo, deployment: &str, port: u16, name: &'static str, folder: &'a Path) -> Result<Self> {
        let root =
            b.kubectl.ok(&["get", "configmap", "istio-ca-root-cert", "-o", "jsonpath={.data.root-cert\\.pem}"])?;
        fs::write(folder.join("root-cert.pem"), root)?;
        let beside = Beside::forward(&b.kubectl.within("istio-system"), deployment, port)?;
        Ok(Self { beside, name, folder })
    }

    fn ask(&self, token: &str, csr: String) -> Result<Vec<String>> {
        let file = self.folder.join("token");
        fs::write(&file, token)?;
        let options = CaOptions {
            address: self.beside.address.to_string(),
            name: Some(self.name.to_owned()),
            roots: self.folder.join("root-cert.pem"),
            token: Some(file),
            cluster: "Kubernetes".to_owned(),
            mark: None,
        };
        let client = CaClient::new(options, CertificateSlot::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(client.sign(csr, Duration::from_secs(3600)))?)
    }

    fn refused(&self, token: &str, csr: String, says: &[&str]) -> Result<()> {
        let Err(error) = self.ask(token, csr) else { anyhow::bail!("{} signed it; expected {says:?}", self.name) };
        let text = format!("{error:#}");
        ensure!(says.iter().all(|part| text.contains(part)), "{}: expected {says:?} in: {text}", self.name);
        Ok(())
    }
}

fn token(b: &Bookinfo, account: &str, audience: &str) -> Result<String> {
    let path = format!("/api/v1/namespaces/default/serviceaccounts/{account}/token");
    let wish = format!(
        r#"{{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{{"audiences":["{audience}"]}}}}"#
    );
    let said = b.kubectl.fed(&["create", "--raw", &path, "-f", "-"], &wish)?.ok()?;
    let given: serde_json::Value = serde_json::from_str(&said)?;
    Ok(given["status"]["token"].as_str().context(said)?.to_owned())
}

fn csr(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Result<String> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![authority::uri(name)?];
    change(&mut params);
    Ok(params.serialize_request(&KeyPair::generate()?)?.pem()?)
}

fn desks<'a>(b: &Bookinfo, folder: &'a Path) -> Result<[Desk<'a>; 2]> {
    Ok([
        Desk::of(b, "deploy/istio-citadel", 8060, "istio-citadel.istio-system.svc", folder)?,
        Desk::of(b, "deploy/istio-pilot", 15012, "istiod.istio-system.svc", folder)?,
    ])
}

pub(crate) fn requests(b: &Bookinfo) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let token = token(b, "bookinfo-productpage", "istio-ca")?;
    for desk in desks(b, folder.path())? {
        let chain = desk.ask(&token, csr(CALLER, |_| ())?)?;
        ensure!(chain.len() >= 2, "{} certificates", chain.len());
        let before = signed(b)?;
        let other = "spiffe://cluster.local/ns/default/sa/bookinfo-reviews";
        desk.refused(&token, csr(other, |_| ())?, &[other, CALLER])?;
        let foreign = CALLER.replace("cluster.local", "elsewhere.example");
        desk.refused(&token, csr(&foreign, |_| ())?, &[&foreign])?;
        let authority = csr(CALLER, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))?;
        desk.refused(&token, authority, &["authority"])?;
        desk.refused(&token, "no request at all".to_owned(), &["request"])?;
        ensure!(signed(b)? == before, "something was signed");
    }
    Ok(())
}

pub(crate) fn tokens(b: &Bookinfo) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (good, other) =
        (token(b, "bookinfo-productpage", "istio-ca")?, token(b, "bookinfo-productpage", "someone-else")?);
    for desk in desks(b, folder.path())? {
        desk.ask(&good, csr(CALLER, |_| ())?)?;
        let before = signed(b)?;
        desk.refused(&other, csr(CALLER, |_| ())?, &["authenticat", "audience"])?;
        desk.refused("no.token.atall", csr(CALLER, |_| ())?, &["authenticat"])?;
        ensure!(signed(b)? == before, "something was signed");
    }
    Ok(())
}

//! Changes of pilot's folder, so many a second: a rule whose reply header counts them, and endpoints that come and go.
//!
//! One endpoint of the application stays all the while. Never here: the load. Called by the suite `soak`.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

/// The second endpoint of the application.
pub(crate) const OTHER: &str = "198.18.0.12";
/// Address that is in a slice, but never ready.
const ABSENT: &str = "198.18.0.99";
const PAUSE: Duration = Duration::from_millis(50);

/// The Pod behind the second endpoint.
pub(crate) fn pod() -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: other, namespace: default, labels: {{app: app, security.istio.io/tlsMode: istio}}}}\nspec: {{serviceAccountName: other, containers: [{{name: main, image: x}}]}}\nstatus: {{phase: Running, podIP: {OTHER}, podIPs: [{{ip: {OTHER}}}]}}\n"
    )
}

fn rule(change: u64) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: app, namespace: default}}\nspec:\n  hosts: [app]\n  http:\n  - headers: {{response: {{set: {{x-change: \"{change}\"}}}}}}\n    route: [{{destination: {{host: app}}}}]\n"
    )
}

fn endpoints(there: bool) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: app-y, namespace: default, labels: {{kubernetes.io/service-name: app}}}}\naddressType: IPv4\nports: [{{name: http, port: 5000, protocol: TCP}}]\nendpoints:\n- {{addresses: [{ABSENT}], conditions: {{ready: false}}}}\n- {{addresses: [{OTHER}], conditions: {{ready: {there}}}, targetRef: {{kind: Pod, name: other, namespace: default}}}}\n"
    )
}

/// Changes under way; they end when they are stopped or dropped.
pub(crate) struct Changes {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64>>>,
}

impl Changes {
    /// Starts to write into the folder.
    pub(crate) fn start(folder: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (ends, folder) = (Arc::clone(&stop), folder.to_owned());
        let thread = thread::spawn(move || change(&folder, &ends));
        Self { stop, thread: Some(thread) }
    }

    /// Ends them; how many there were. The last one is a rule.
    pub(crate) fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Relaxed);
        let thread = self.thread.take().context("stopped before")?;
        thread.join().map_err(|_| anyhow::anyhow!("the changes panicked"))?
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// A rule, endpoints, a rule, …; each file is there whole or not at all.
#[expect(clippy::disallowed_methods, reason = "changes come by the clock")]
fn change(folder: &Path, stop: &AtomicBool) -> Result<u64> {
    let put = |name: &str, text: String| -> Result<()> {
        let part: PathBuf = folder.join(format!(".{name}"));
        fs::write(&part, text)?;
        Ok(fs::rename(part, folder.join(name))?)
    };
    let (began, mut count) = (Instant::now(), 0_u64);
    loop {
        count += 1;
        match count % 4 {
            1 | 3 => put("rule.yaml", rule(count))?,
            other => put("endpoints.yaml", endpoints(other == 2))?,
        }
        if stop.load(Relaxed) && count % 2 == 1 {
            return Ok(count);
        }
        let due = PAUSE * u32::try_from(count)?;
        thread::sleep(due.saturating_sub(began.elapsed()));
    }
}

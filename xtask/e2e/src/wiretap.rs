//! Listens on the wires of a sandbox's Pods: tcpdump in the sandbox's network, kept in memory.
//!
//! Every Pod hangs on a wire of its own whose other end is in that network. Never here: what may be seen.
//! Called by the suite `bookinfo`.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Stdio},
    sync::{Arc, Mutex},
};

use anyhow::{Context as _, Result, bail};

use crate::sandbox::Sandbox;

/// Packets since the start, as tcpdump writes them.
pub struct Wiretap {
    child: Child,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Wiretap {
    /// Starts to listen; returns once every later packet is heard.
    ///
    /// # Errors
    /// tcpdump cannot listen; what it says is in the error.
    pub fn start(sandbox: &Sandbox) -> Result<Self> {
        // Room for many packets of the usual size; the buffer is divided by the longest, 256 KiB unless told.
        let listen = ["tcpdump", "-Z", "root", "-i", "any", "-s", "4096", "-B", "16384", "-U", "--immediate-mode"];
        let mut child = sandbox
            .command(&[&["shell", "--"], listen.as_slice(), &["-w", "-"]].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut packets = child.stdout.take().context("no output")?;
        let mut said = BufReader::new(child.stderr.take().context("no errors")?);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let mut tap = Self { child, heard: Arc::clone(&heard) };
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(length @ 1..) = packets.read(&mut buffer) {
                if let (Ok(mut heard), Some(part)) = (heard.lock(), buffer.get(..length)) {
                    heard.extend_from_slice(part);
                }
            }
        });
        let mut lines = String::new();
        while said.read_line(&mut lines)? > 0 {
            if lines.contains("listening on") {
                return Ok(tap);
            }
        }
        tap.child.wait()?;
        bail!("tcpdump does not listen: {lines}")
    }

    /// Whether these bytes have passed in one piece.
    pub fn heard(&self, bytes: &[u8]) -> bool {
        self.heard.lock().is_ok_and(|heard| heard.windows(bytes.len()).any(|window| window == bytes))
    }
}

impl Drop for Wiretap {
    fn drop(&mut self) {
        if self.child.kill().and_then(|()| self.child.wait()).is_err() {
            eprintln!("tcpdump is already gone");
        }
    }
}

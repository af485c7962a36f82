//! Starting one run of a container: environment, mounts, programs, its log, and the handle by which others reach it.
//!
//! Never here: which image it is, or what follows a start. The first half of `container`.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::Api;
use tokio::sync::{broadcast, watch};

use super::container::Supervised;
use super::env::{self, Sources};
use super::live::{Input, Run, Runner};
use super::log::Log;
use super::person;
use crate::event::Tone;
use crate::image::{Image, LINKS, PROGRAMS};
use crate::keeper::birth::Users;
use crate::keeper::wire::{Command, Exit, Mount, Programs, Start};
use crate::limits::OUTPUT_PIECES_MAX;
use crate::link::{Launched, Streams};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a container does not start, with the reason its status shows.
pub(super) struct NotStarted {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Supervised {
    /// Everything the keeper must know.
    async fn command(&self, image: &Image) -> Result<Command, NotStarted> {
        let config = |message: String| NotStarted { reason: "CreateContainerConfigError", message };
        let pod = self.pod();
        let sources = self.sources().await.map_err(|error| config(error.to_string()))?;
        let services = self.kit.services.borrow().clone();
        let mut env: BTreeMap<String, String> = BTreeMap::from([
            ("PATH".to_owned(), format!("{LINKS}:{PROGRAMS}:{PATH}")),
            ("HOSTNAME".to_owned(), self.hostname.clone()),
        ]);
        env.extend(image.env.iter().cloned());
        let own = env::build(&pod, &self.container, &services, &sources, &self.place);
        env.extend(own.map_err(|error| config(error.to_string()))?);
        let person = person::person(&pod, &self.container, self.kit.users, image.sidecar);
        let person = person.map_err(|error| config(error.to_string()))?;
        env.entry("HOME".to_owned()).or_insert_with(|| if person.uid == 0 { "/root" } else { "/" }.to_owned());
        if self.container.tty == Some(true) {
            env.entry("TERM".to_owned()).or_insert_with(|| "xterm".to_owned());
        }
        let filled = |words: &Option<Vec<String>>| -> Vec<String> {
            let words = words.iter().flatten();
            words.map(|word| env::expand(word, |name| env.get(name).cloned())).collect()
        };
        let (command, args) = (filled(&self.container.command), filled(&self.container.args));
        let mut argv = if command.is_empty() { image.entrypoint.clone() } else { command.clone() };
        if !args.is_empty() {
            argv.extend(args);
        } else if command.is_empty() {
            argv.extend(image.cmd.iter().cloned());
        }
        Ok(Command {
            argv,
            env: env.into_iter().collect(),
            directory: self.container.working_dir.clone().unwrap_or_else(|| "/".to_owned()),
            person,
            terminal: self.container.tty == Some(true),
        })
    }

    async fn sources(&self) -> Result<Sources, kube::Error> {
        let (maps, secrets) = env::needed(&self.container);
        let namespace = self.pod().metadata.namespace.clone().unwrap_or_default();
        let mut sources = Sources::default();
        let api: Api<ConfigMap> = Api::namespaced(self.kit.client.clone(), &namespace);
        for name in maps {
            let found = api.get_opt(&name).await?.map(|map| map.data.unwrap_or_default());
            sources.config_maps.insert(name, found);
        }
        let api: Api<Secret> = Api::namespaced(self.kit.client.clone(), &namespace);
        for name in secrets {
            let found = api.get_opt(&name).await?.map(|secret| {
                let values = secret.data.into_iter().flatten();
                values.map(|(key, bytes)| (key, String::from_utf8_lossy(&bytes.0).into_owned())).collect()
            });
            sources.secrets.insert(name, found);
        }
        Ok(sources)
    }

    /// What the keeper is asked for, and the trees of programs that go with it.
    fn plan(&self, image: &Image, command: &Command) -> Result<(Start, Vec<OwnedFd>), NotStarted> {
        let pod = self.pod();
        let detached = self.kit.users == Users::High;
        let mut trees = Vec::new();
        let mut programs = Vec::new();
        if let Some(folder) = &image.folder {
            if detached {
                let tree = crate::keeper::sys::copy_tree(folder);
                trees.push(tree.map_err(|error| failed(format!("{}: {error}", folder.display())))?);
            }
            programs.push(Programs { folder: folder.clone(), at: PROGRAMS.to_owned(), detached });
        }
        let mounts = self.container.volume_mounts.iter().flatten().map(|mount| Mount {
            volume: mount.name.clone(),
            sub_path: sub_path(mount.sub_path.as_deref(), mount.sub_path_expr.as_deref(), &command.env),
            target: mount.mount_path.clone(),
            read_only: mount.read_only == Some(true) || is_fixed(&pod, &mount.name),
        });
        let start = Start {
            process: 0,
            pod: self.board.uid().to_owned(),
            command: command.clone(),
            mounts: mounts.collect(),
            read_only_root: self
                .container
                .security_context
                .as_ref()
                .is_some_and(|context| context.read_only_root_filesystem == Some(true)),
            etc: vec![
                ("resolv.conf".to_owned(), self.resolv.clone()),
                ("hosts".to_owned(), self.hosts.clone()),
                ("hostname".to_owned(), format!("{}\n", self.hostname)),
            ],
            programs,
            links: image.links.clone(),
            sysfs: self.kit.link.facts().sysfs,
            last_words: self.container.termination_message_path.clone().filter(|path| path.starts_with('/')),
        };
        Ok((start, trees))
    }

    /// Starts one run. What is returned is running.
    pub(super) async fn start(&self, image: &Image) -> Result<(Launched, watch::Sender<Option<Exit>>), NotStarted> {
        let command = self.command(image).await?;
        let (start, trees) = self.plan(image, &command)?;
        let uid = self.board.uid().to_owned();
        let restarts = self.board.read(self.name(), |cell| cell.restarts).unwrap_or_default();
        let log = Log::create(self.kit.log_path(&self.pod(), self.name(), restarts));
        let log = Arc::new(log.map_err(|error| failed(format!("log file: {error}")))?);
        self.say(Tone::Normal, "Created", &format!("Created container: {}", self.name()));
        let stdin = self.container.stdin == Some(true);
        let started = async {
            let mut launched = self.kit.link.start(start, stdin, trees).await?;
            launched.begun().await.map(|()| launched)
        };
        let mut launched = started.await.map_err(|error| {
            // There was no run: kept, these files would grow in number with every attempt.
            remove_log(log.path());
            failed(error.to_string())
        })?;
        let (exit_sender, exit) = watch::channel(None);
        let (output, _) = broadcast::channel(OUTPUT_PIECES_MAX);
        let input = match &mut launched.streams {
            Streams::Terminal(terminal) => Input::Terminal(terminal.clone()),
            Streams::Pipes { stdin, .. } => {
                stdin.take().map_or(Input::None, |stdin| Input::Pipe(Arc::new(tokio::sync::Mutex::new(Some(stdin)))))
            }
        };
        let runner = Runner { link: self.kit.link.clone(), process: launched.process, command: Arc::new(command) };
        let run = Run {
            runner,
            log: Arc::clone(&log),
            output,
            input,
            stdin_once: self.container.stdin_once == Some(true),
            exit,
        };
        let id = format!("sandbox://{uid}-{}-{restarts}", self.name());
        self.kit.live.update(&uid, self.name(), |runs| {
            runs.current = Some(run);
            runs.logs.push((Some(Arc::clone(&log)), log.path().to_owned()));
            if runs.logs.len() > 2 {
                let (_, old) = runs.logs.remove(0);
                remove_log(&old);
            }
        });
        self.cell(|cell| cell.id = id);
        self.say(Tone::Normal, "Started", &format!("Started container {}", self.name()));
        Ok((launched, exit_sender))
    }
}

fn failed(message: String) -> NotStarted {
    NotStarted { reason: "StartError", message }
}

fn sub_path(plain: Option<&str>, expression: Option<&str>, env: &[(String, String)]) -> Option<String> {
    let lookup = |name: &str| env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let found = expression.map(|text| env::expand(text, lookup)).or_else(|| plain.map(str::to_owned));
    found.filter(|path| !path.is_empty())
}

/// Volumes that the node writes are read-only to containers.
fn is_fixed(pod: &Pod, name: &str) -> bool {
    let volume = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).find(|volume| volume.name == name);
    volume.is_some_and(|volume| volume.empty_dir.is_none() && volume.host_path.is_none())
}

fn remove_log(path: &Path) {
    for path in [path.to_owned(), path.with_extension("log.1")] {
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "old log not removed");
        }
    }
}

//! Which program an image's name stands for.
//!
//! Our own images are built in, some well-known names mean programs of this machine, and users add lines in a file.
//! Never here: downloading, starting. Called when a container starts; the user's file is read each time.

use std::path::{Path, PathBuf};

/// Where our programs are seen in a container.
pub(crate) const PROGRAMS: &str = "/ferromesh/bin";
/// Where links to them under other names are.
pub(crate) const LINKS: &str = "/ferromesh";

/// What an image is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Image {
    /// What `command` in a Pod replaces.
    pub(crate) entrypoint: Vec<String>,
    /// What `args` in a Pod replaces.
    pub(crate) cmd: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    /// A folder to be seen at [`PROGRAMS`], where the program is not one of the machine's own.
    pub(crate) folder: Option<PathBuf>,
    /// Names under which a program of that folder is found too.
    pub(crate) links: Vec<(String, String)>,
    /// The sidecar: must be exempt from capture wherever user ids cannot tell it.
    pub(crate) sidecar: bool,
    /// Shown as the image's id.
    pub(crate) id: String,
}

/// Why an image has no program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ImageError {
    /// Nothing is known under that name.
    #[error(
        "no program is known for image \"{image}\". Say which one to run by a line in {file}:  \
         {pattern} = /path/to/program args…"
    )]
    Unknown { image: String, pattern: String, file: String },
    /// The program is not on this machine.
    #[error(
        "image \"{image}\" stands for {program}, which this machine does not have; install it, or say which program to \
             run by a line in {file}:  {pattern} = /path/to/program args…"
    )]
    Absent { image: String, program: String, pattern: String, file: String },
    /// The user's file has a line that says nothing.
    #[error("{file}:{line}: expected `image-pattern = /path/to/program args…`")]
    BadLine { file: String, line: usize },
}

/// Where programs are looked for.
#[derive(Debug, Clone)]
pub(crate) struct Images {
    /// Our own programs: where meshctl is.
    pub(crate) own: PathBuf,
    /// The user's table.
    pub(crate) file: PathBuf,
    /// The machine's folders of programs.
    pub(crate) path: Vec<PathBuf>,
}

/// An image's name without registry and tag: `docker.io/istio/proxyv2:1.2@sha…` is `proxyv2`.
fn base(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or(image);
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split(':').next().unwrap_or(last)
}

fn without_tag(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or(image);
    match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    }
}

/// `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|text| {
            (0..=text.len()).filter(|at| text.is_char_boundary(*at)).any(|at| matches(rest, &text[at..]))
        }),
    }
}

/// Our own programs: image name, program, its first arguments.
fn built_in(base: &str) -> Option<(&'static str, Vec<&'static str>)> {
    Some(match base {
        "proxyv2" | "proxy" | "pilot-agent" | "proxyv2-distroless" | "proxyv2-debug" => ("proxy", vec![]),
        "pilot" => ("pilot", vec![]),
        "citadel" => ("citadel", vec![]),
        "sidecar_injector" | "injector" => ("injector", vec![]),
        "tcp-echo-server" => ("samples", vec!["tcp-echo-server"]),
        "httpbin" | "go-httpbin" => ("samples", vec!["httpbin"]),
        _ => {
            let name = base.strip_prefix("examples-")?;
            let name = name.strip_prefix("bookinfo-").unwrap_or(name);
            let name = name.rsplit_once("-v").map_or(name, |(name, _)| name);
            let known = ["productpage", "details", "reviews", "ratings", "helloworld"];
            ("samples", vec![known.into_iter().find(|known| *known == name)?])
        }
    })
}

/// Names of other people's images: which program of the machine they run. `None`: a shell with the machine's programs.
fn well_known(base: &str) -> Option<Option<&'static str>> {
    Some(match base {
        "busybox" | "busyboxplus" | "alpine" | "ubuntu" | "debian" | "fedora" | "centos" | "netshoot" | "bash" => None,
        "curl" | "curl-ssl" => Some("curl"),
        "sleep" => Some("sleep"),
        "redis" => Some("redis-server"),
        "python" => Some("python3"),
        "mongo" | "examples-bookinfo-mongodb" => Some("mongod"),
        "mysql" | "mariadb" | "examples-bookinfo-mysqldb" => Some("mysqld"),
        "etcd" => Some("etcd"),
        _ => return None,
    })
}

fn version(base: &str) -> Option<&str> {
    let (_, version) = base.rsplit_once("-v")?;
    version.bytes().all(|byte| byte.is_ascii_digit()).then(|| &base[base.len() - version.len() - 1..])
}

impl Images {
    /// The program of an image. `read` gives a file's text, `executable` says whether a program is there.
    pub(crate) fn find(
        &self,
        image: &str,
        read: impl Fn(&Path) -> Option<String>,
        executable: impl Fn(&Path) -> bool,
    ) -> Result<Image, ImageError> {
        let file = self.file.display().to_string();
        let pattern = format!("*{}*", base(image));
        if let Some(text) = read(&self.file)
            && let Some(command) = line_for(&text, &file, image)?
        {
            return self.users_program(image, &command, &executable);
        }
        let absent = |program: &str| ImageError::Absent {
            image: image.to_owned(),
            program: program.to_owned(),
            pattern: pattern.clone(),
            file: file.clone(),
        };
        let base = base(image);
        if let Some((program, args)) = built_in(base) {
            if !executable(&self.own.join(program)) {
                return Err(absent(&self.own.join(program).display().to_string()));
            }
            let mut entrypoint = vec![format!("{PROGRAMS}/{program}")];
            entrypoint.extend(args.into_iter().map(str::to_owned));
            return Ok(Image {
                entrypoint,
                env: version(base)
                    .map(|version| ("SERVICE_VERSION".to_owned(), version.to_owned()))
                    .into_iter()
                    .collect(),
                folder: Some(self.own.clone()),
                links: own_links(program),
                sidecar: program == "proxy",
                id: format!("sandbox://{program}"),
                ..Image::default()
            });
        }
        match well_known(base) {
            Some(None) => {
                Ok(Image { cmd: vec!["/bin/sh".to_owned()], id: "sandbox://machine".to_owned(), ..Image::default() })
            }
            Some(Some(program)) => {
                let found = self.on_machine(program, &executable).ok_or_else(|| absent(program))?;
                Ok(machine(&found))
            }
            None => match self.on_machine(base, &executable) {
                Some(found) => Ok(machine(&found)),
                None => Err(ImageError::Unknown { image: image.to_owned(), pattern, file }),
            },
        }
    }

    fn on_machine(&self, program: &str, executable: impl Fn(&Path) -> bool) -> Option<PathBuf> {
        self.path.iter().map(|folder| folder.join(program)).find(|path| executable(path))
    }

    fn users_program(
        &self,
        image: &str,
        command: &[String],
        executable: impl Fn(&Path) -> bool,
    ) -> Result<Image, ImageError> {
        let (program, args) = command.split_first().map_or(("", [].as_slice()), |(first, rest)| (first.as_str(), rest));
        let path = Path::new(program);
        if !executable(path) {
            return Err(ImageError::Absent {
                image: image.to_owned(),
                program: program.to_owned(),
                pattern: without_tag(image).to_owned(),
                file: self.file.display().to_string(),
            });
        }
        let shared = ["/usr", "/bin", "/sbin", "/opt", "/lib"].iter().any(|folder| path.starts_with(folder));
        let mut found = machine(path);
        if !shared && let (Some(folder), Some(name)) = (path.parent(), path.file_name()) {
            found.folder = Some(folder.to_owned());
            found.entrypoint = vec![format!("{PROGRAMS}/{}", name.to_string_lossy())];
        }
        found.entrypoint.extend(args.iter().cloned());
        Ok(found)
    }
}

fn machine(path: &Path) -> Image {
    let path = path.display().to_string();
    Image { id: format!("sandbox://{path}"), entrypoint: vec![path], ..Image::default() }
}

/// Commands that people type in containers of these images.
fn own_links(program: &str) -> Vec<(String, String)> {
    let names: &[&str] = match program {
        "proxy" => &["pilot-agent", "envoy"],
        "pilot" => &["pilot-discovery"],
        _ => &[],
    };
    names.iter().map(|name| (format!("{LINKS}/{name}"), format!("{PROGRAMS}/{program}"))).collect()
}

/// The first line of the user's table that fits.
fn line_for(text: &str, file: &str, image: &str) -> Result<Option<Vec<String>>, ImageError> {
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = || ImageError::BadLine { file: file.to_owned(), line: number + 1 };
        let (pattern, command) = line.split_once('=').ok_or_else(bad)?;
        let (pattern, command) = (pattern.trim(), command.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        if pattern.is_empty() || !command.first().is_some_and(|program| program.starts_with('/')) {
            return Err(bad());
        }
        if matches(pattern, image) || matches(pattern, without_tag(image)) || pattern == base(image) {
            return Ok(Some(command));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(image: &str, table: &str) -> Result<Image, ImageError> {
        let images = Images { own: "/own".into(), file: "/state/images".into(), path: vec!["/usr/bin".into()] };
        let there = ["/own/proxy", "/own/samples", "/usr/bin/curl", "/home/me/app", "/usr/bin/nginx"];
        images.find(image, |_| Some(table.to_owned()), |path| there.iter().any(|known| Path::new(known) == path))
    }

    fn check(image: &str, table: &str, expected: &[&str]) {
        assert_eq!(find(image, table).unwrap().entrypoint, expected, "{image}");
    }

    #[test]
    fn our_images_are_found_under_any_registry_and_tag() {
        check("docker.io/istio/proxyv2:1.28.0", "", &["/ferromesh/bin/proxy"]);
        check("registry:5000/proxyv2@sha256:12", "", &["/ferromesh/bin/proxy"]);
    }

    #[test]
    fn samples_know_their_version() {
        let image = find("registry.istio.io/release/examples-bookinfo-reviews-v3:1.20.3", "").unwrap();
        assert_eq!(image.entrypoint, ["/ferromesh/bin/samples", "reviews"]);
        assert_eq!(image.env, [("SERVICE_VERSION".to_owned(), "v3".to_owned())]);
        check("istio/examples-helloworld-v1", "", &["/ferromesh/bin/samples", "helloworld"]);
    }

    #[test]
    fn well_known_names_are_programs_of_the_machine() {
        check("curlimages/curl", "", &["/usr/bin/curl"]);
        check("nginx:1.27", "", &["/usr/bin/nginx"]);
        assert_eq!(find("busybox", "").unwrap().cmd, ["/bin/sh"]);
    }

    #[test]
    fn the_users_table_goes_first() {
        check("acme/app:1", "# mine\nacme/* = /home/me/app --port 80\n", &["/ferromesh/bin/app", "--port", "80"]);
    }

    #[test]
    fn an_unknown_image_says_what_to_write() {
        let error = find("acme/app:1", "").unwrap_err().to_string();
        assert!(error.contains("/state/images") && error.contains("*app* ="), "{error}");
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = find("x", "\nx /bin/true\n").unwrap_err();
        assert_eq!(error, ImageError::BadLine { file: "/state/images".to_owned(), line: 2 });
    }
}

//! Real kubectl, of every version found, does the everyday things against the sandbox.
//!
//! One test a thing and version; each in a namespace of its own. Never here: the mesh.

mod kubectl_cases;

use std::process::ExitCode;

use e2e::{
    judge,
    kubectl::Kubectl,
    sandbox::Sandbox,
    suite::{self, Outcome, Test},
};

fn main() -> ExitCode {
    let mut tests: Vec<Test<Sandbox>> = Vec::new();
    let versions = judge::kubectls();
    for wanted in ["1.20", "1.27", "1.28", "1.29", "1.30", "1.31", "1.32", "1.33"] {
        let Some((version, program)) = versions.iter().find(|(version, _)| version == wanted).cloned() else {
            // Debian's 1.20 can be installed anywhere; the others are a machine's own.
            if wanted == "1.20" {
                tests.push(Test::maybe("1.20", |_: &Sandbox| {
                    Ok(Outcome::NotRun("kubectl-1.20 is not installed".to_owned()))
                }));
            }
            continue;
        };
        // The oldest, the newest and one between do everything; the others the short list.
        let everything = ["1.20", "1.27", "1.33"].contains(&wanted);
        for (name, case) in
            kubectl_cases::CASES.iter().filter(|(name, _)| everything || kubectl_cases::SHORT.contains(name))
        {
            let (program, case, version) = (program.clone(), *case, version.clone());
            let namespace = format!("{}-{}", name.replace('_', "-"), version.replace('.', "-"));
            tests.push(Test::new(format!("{version}::{name}"), move |sandbox: &Sandbox| {
                let kubectl = Kubectl::new(&program, sandbox.kubeconfig(), &namespace);
                kubectl.ok(&["create", "namespace", &namespace])?;
                let done = case(&kubectl, &version);
                kubectl.ok(&["delete", "namespace", &namespace, "--wait=false"])?;
                done
            }));
        }
    }
    suite::run("kubectl", tests, || Sandbox::start("kubectl"))
}

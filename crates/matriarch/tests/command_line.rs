//! The built program, as a user calls it: what it says to wrong calls.

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn matriarch(arguments: &[&str]) -> std::io::Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_matriarch")).args(arguments).env_remove("RUST_LOG").output()
}

#[test]
fn an_unknown_verb_is_refused_with_the_way_to_help() -> std::io::Result<()> {
    let output = matriarch(&["frobnicate"])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(said.contains("unrecognized subcommand 'frobnicate'"), "{said}");
    assert!(said.contains("--help"), "{said}");
    Ok(())
}

#[test]
fn a_missing_manifest_is_named_before_anything_is_made() -> std::io::Result<()> {
    let state = std::env::temp_dir().join(format!("m-arguments-{}", std::process::id()));
    let directory = state.to_string_lossy().into_owned();
    let output = matriarch(&["local", "up", "/no/such.yaml", "--state", &directory])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(said.contains("cannot read /no/such.yaml"), "{said}");
    assert!(!state.exists(), "{} was made", state.display());
    Ok(())
}

#[test]
fn the_verbs_for_people_are_listed_and_those_of_pods_are_not() -> std::io::Result<()> {
    let output = matriarch(&["--help"])?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success());
    assert!(said.contains("local") && said.contains("operator"), "{said}");
    assert!(!said.contains("keeper"), "{said}");
    Ok(())
}

/// Started before an API server that takes connections and answers nothing, the operator ends when
/// it is told to.
#[test]
fn an_operator_without_an_api_ends_when_it_is_told_to() -> std::io::Result<()> {
    for (name, arguments) in [
        ("alone", ["--operator-image=x"].as_slice()),
        ("leader", ["--operator-image=x", "--leader-elect"].as_slice()),
        ("image", ["--leader-elect"].as_slice()),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let config = std::env::temp_dir().join(format!("m-api-{name}-{}", std::process::id()));
        std::fs::write(
            &config,
            format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
                 clusters: [{{name: c, cluster: {{server: 'http://{}'}}}}]\n\
                 contexts: [{{name: c, context: {{cluster: c, user: c}}}}]\n\
                 users: [{{name: c, user: {{}}}}]\n",
                listener.local_addr()?
            ),
        )?;
        let mut operator = Command::new(env!("CARGO_BIN_EXE_matriarch"))
            .arg("operator")
            .args(arguments)
            .envs([("POD_NAME", "one"), ("NAMESPACE", "here")])
            .env("KUBECONFIG", &config)
            .stdout(Stdio::null())
            .spawn()?;
        // Its first request is on its way, and stays so.
        let _held = listener.accept()?;
        Command::new("kill").arg(operator.id().to_string()).status()?;
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = operator.try_wait()? {
                break Some(status);
            }
            if begun.elapsed() > Duration::from_secs(30) {
                operator.kill()?;
                operator.wait()?;
                break None;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        std::fs::remove_file(&config)?;
        assert!(status.is_some_and(|status| status.success()), "{name}: {status:?}");
    }
    Ok(())
}
